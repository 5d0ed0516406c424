// The bytes that are written over are the object's pointer to its virtual functions, which nothing
// reads any more: sentencepiece calls none of them, and its destructor sets it anew.
#include "torch_flags.hpp"

#include <c10/util/Flags.h>

#include <cstring>

C10_DECLARE_int(minloglevel);
C10_DECLARE_bool(caffe2_use_fatal_for_enforce);

namespace lorapp::detail {

void repair_torch_flags() noexcept {
  unsigned char byte;
  std::memcpy(&byte, &FLAGS_caffe2_use_fatal_for_enforce, 1);
  if (byte <= 1) return;
  FLAGS_caffe2_use_fatal_for_enforce = false;
  FLAGS_minloglevel = 0;
}

}  // namespace lorapp::detail
