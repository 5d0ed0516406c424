// A program that links LibTorch and uses nothing of it: what starting costs before any work.
#include <cstdio>

int main() {
  std::puts("linked");
  return 0;
}
