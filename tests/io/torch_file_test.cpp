// Archives of torch.save: what the writer writes is read again, and what is broken is an Error.
#include "io/torch_file.hpp"
#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"
#include "torch_flags.hpp"

#include <c10/util/Logging.h>
#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstring>
#include <string>

C10_DECLARE_int(minloglevel);

using namespace lorapp;
using namespace lorapp::detail;
using namespace lorapp::test;

namespace {

// Text with zero bytes.
template <std::size_t N>
std::string bytes(const char (&text)[N]) {
  return {text, N - 1};
}

std::filesystem::path sample(const TemporaryFolder& folder) {
  TorchWriter out;
  out.begin_dict();
  out.text("list");
  out.begin_list();
  out.none();
  out.boolean(true);
  out.integer(-7);
  out.integer(std::int64_t{1} << 40);
  out.number(0.1);
  out.text("ü");
  out.end_list();
  out.integer(3);
  out.begin_tuple();
  out.tensor(torch::arange(6, torch::kFloat32).view({2, 3}));
  out.tensor(torch::full({}, 2.5, torch::kFloat32));
  out.end_tuple();
  out.end_dict();
  out.write(folder / "sample.pt", "test");
  return folder / "sample.pt";
}

std::string error_of_pickle(const std::string& pickle) {
  std::deque<TorchValue> values;
  return error_of([&] { unpickle(pickle, "test", "here", values); });
}

TorchTensor tensor_with(std::int64_t storage_size,
                        std::int64_t offset,
                        std::vector<std::int64_t> sizes,
                        std::vector<std::int64_t> strides) {
  return {"data/0", torch::kFloat32, storage_size, offset, std::move(sizes), std::move(strides)};
}

}  // namespace

TEST_SUITE_BEGIN("io");

TEST_CASE("torch_file: every kind of value that is written is read again") {
  const TemporaryFolder folder;
  const TorchFile file = TorchFile::open(sample(folder), "test");
  const auto& list = *file.root().find("list")->as<TorchItems>();
  REQUIRE(list.size() == 6);
  CHECK(list[0]->as<std::monostate>() != nullptr);
  CHECK(*list[1]->as<bool>());
  CHECK(*list[2]->as<std::int64_t>() == -7);
  CHECK(*list[3]->as<std::int64_t>() == std::int64_t{1} << 40);
  CHECK(*list[4]->as<double>() == 0.1);
  CHECK(*list[5]->as<std::string>() == "ü");
  const auto& pair = *file.root().find(3)->as<TorchItems>();
  REQUIRE(pair.size() == 2);
  CHECK(file.read(*pair[0]->tensor()).equal(torch::arange(6, torch::kFloat32).view({2, 3})));
  CHECK(file.read(*pair[1]->tensor()).item<float>() == 2.5F);
  CHECK(file.root().find("absent") == nullptr);
  CHECK(file.root().find(4) == nullptr);
}

TEST_CASE("torch_file: equal values give equal files") {
  const TemporaryFolder a;
  const TemporaryFolder b;
  CHECK(read_file(sample(a)) == read_file(sample(b)));
}

TEST_CASE(
    "torch_file: a file cut anywhere is an Error, one with a wrong byte an Error or a value") {
  const TemporaryFolder folder;
  const std::string whole = read_file(sample(folder));
  for (std::size_t length = 0; length < whole.size(); length += 7) {
    CAPTURE(length);
    const auto path = folder.write("cut.pt", whole.substr(0, length));
    CHECK(contains(error_of([&] { TorchFile::open(path, "test"); }), "cut.pt"));
  }
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (at % 2 == 0 ? 0xff : 0x10));
    const auto path = folder.write("changed.pt", changed);
    try {
      const TorchFile file = TorchFile::open(path, "test");
      const TorchValue* pair = file.root().find(3);
      const auto* items = pair != nullptr ? pair->as<TorchItems>() : nullptr;
      for (const TorchValue* item : items != nullptr ? *items : TorchItems()) {
        if (item->tensor() != nullptr) file.read(*item->tensor());
      }
    } catch (const Error&) {
      ++refused;  // any other exception fails the test
    }
  }
  CHECK(refused > 100);
}

TEST_CASE("torch_file: what another library wrote over LibTorch's flags is put right") {
  // As sentencepiece does in a program that loads LibTorch first.
  const unsigned char before = 0;
  const unsigned char written = 0xff;
  std::memcpy(&FLAGS_caffe2_use_fatal_for_enforce, &written, 1);
  const int level = FLAGS_minloglevel;
  FLAGS_minloglevel = -12345;
  repair_torch_flags();
  CHECK(std::memcmp(&FLAGS_caffe2_use_fatal_for_enforce, &before, 1) == 0);
  CHECK(FLAGS_minloglevel == 0);

  FLAGS_caffe2_use_fatal_for_enforce = true;  // a user's own choice
  FLAGS_minloglevel = 2;
  repair_torch_flags();
  CHECK(FLAGS_caffe2_use_fatal_for_enforce);
  CHECK(FLAGS_minloglevel == 2);
  FLAGS_caffe2_use_fatal_for_enforce = false;
  FLAGS_minloglevel = level;
}

TEST_CASE("torch_file: a file that is no archive of torch.save is refused by name") {
  const TemporaryFolder folder;
  const auto refuse = [&](const std::string& name, const std::string& content) {
    const auto path = folder.write(name, content);
    return error_of([&] { TorchFile::open(path, "test"); });
  };
  CHECK(contains(refuse("text.pt", "not a zip archive"), "text.pt is no zip archive"));
  CHECK(contains(refuse("empty.pt", ""), "empty.pt is no zip archive"));
  CHECK(contains(refuse("head.pt", "PK\x03\x04"), "head.pt is cut short"));
  CHECK(contains(error_of([&] { TorchFile::open(folder.path(), "test"); }), "not a"));
  CHECK(!error_of([&] { TorchFile::open(folder / "absent.pt", "test"); }).empty());
}

TEST_CASE("torch_file: a pickle that would run code is refused with the name of what it calls") {
  // os.system("true"), as the module posix has it.
  CHECK(contains(error_of_pickle(bytes("\x80\x02"
                                       "cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")),
                 "it would call \"posix system\""));
  CHECK(contains(error_of_pickle(bytes("\x80\x02"
                                       "cbuiltins\neval\nX\x01\x00\x00\x00"
                                       "1\x85R.")),
                 "builtins eval"));
  // NEWOBJ and INST make objects too.
  CHECK(contains(error_of_pickle(bytes("\x80\x02"
                                       "cbuiltins\nobject\n)\x81.")),
                 "pickle code 129"));
  CHECK(contains(error_of_pickle(bytes("(S'x'\nios\nsystem\n.")), "pickle code"));
  // A name alone is only text.
  std::deque<TorchValue> values;
  CHECK(unpickle(bytes("\x80\x02"
                       "cposix\nsystem\n."),
                 "test", "here", values)
            ->as<TorchGlobal>()
            ->name == "posix system");
}

TEST_CASE("torch_file: a malformed pickle is an Error that names the place") {
  for (const std::string& pickle : {
           bytes(""),
           bytes("\x80"),
           bytes("\x80\x07."),
           bytes("."),
           bytes("NN."),
           bytes("a"),
           bytes("]a"),
           bytes("t"),
           bytes("u"),
           bytes("(u"),
           bytes("}(Nu."),
           bytes("NNs."),
           bytes("N(N."),
           bytes("Na."),
           bytes("h\x05."),
           bytes("q\x01"),
           bytes("X\xff\xff\xff\xff."),
           bytes("J\x01\x02"),
           bytes("G\x01"),
           bytes("\x8a\x09"),
           bytes("cno end"),
           bytes("NQ."),
           bytes("(Q."),
           bytes("NNR."),
           bytes("Nb."),
           bytes("(a."),
           bytes("](s."),
       }) {
    CAPTURE(pickle);
    CHECK(contains(error_of_pickle(pickle), "here at byte "));
  }
  // A list that holds itself is read, named and freed.
  std::deque<TorchValue> values;
  const TorchValue* list = unpickle(bytes("]q\x01h\x01"
                                          "a."),
                                    "test", "here", values);
  CHECK(list->describe() == "a list of 1");
}

TEST_CASE("torch_file: a tensor that does not lie in its storage is an Error") {
  const TemporaryFolder folder;
  const TorchFile file = TorchFile::open(sample(folder), "test");
  const auto refuse = [&](const TorchTensor& tensor) {
    return error_of([&] { file.read(tensor); });
  };
  CHECK(file.read(tensor_with(6, 2, {4}, {1})).equal(torch::arange(2, 6, torch::kFloat32)));
  CHECK(contains(refuse(tensor_with(7, 0, {2, 3}, {3, 1})), "needs 7 elements"));
  CHECK(contains(refuse(tensor_with(6, 1, {2, 3}, {3, 1})), "ends behind its storage"));
  CHECK(contains(refuse(tensor_with(6, 0, {3, 3}, {3, 1})), "larger than its storage"));
  CHECK(contains(refuse(tensor_with(6, 0, {3, 2}, {1, 3})), "not contiguous"));
  CHECK(contains(refuse(tensor_with(6, 0, {1000000}, {0})), "not contiguous"));
  const std::int64_t huge = std::int64_t{1} << 62;
  CHECK(contains(refuse(tensor_with(6, 0, {huge, huge}, {huge, 1})), "larger than its storage"));
  CHECK(contains(refuse(tensor_with(6, huge, {1}, {1})), "ends behind its storage"));
  TorchTensor elsewhere = tensor_with(6, 0, {6}, {1});
  elsewhere.record = "data/9";
  CHECK(contains(refuse(elsewhere), "has no \"data/9\""));
}

TEST_SUITE_END();
