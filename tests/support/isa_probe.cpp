// Prints the instruction sets that can run here, one a line.
#include <lorapp/quant/backend.hpp>

#include <iostream>

int main() {
  for (const std::string& isa : lorapp::available_isas()) std::cout << isa << '\n';
}
