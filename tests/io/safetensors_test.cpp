// Reading and writing safetensors files.
#include "io/dtypes.hpp"

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/io/safetensors.hpp>

#include "raw_safetensors.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

using namespace lorapp;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::raw_safetensors;
using lorapp::test::read_file;
using lorapp::test::TemporaryFolder;

namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(LORAPP_TEST_SOURCE_DIR) / "tests/golden/safetensors_dtypes.safetensors";

bool same_bytes(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  // memcmp takes no null pointer, which is what an empty tensor has.
  return a.numel() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

// Bytes that count up, as a tensor of any type; bool has only two valid bytes.
torch::Tensor pattern(at::IntArrayRef shape, torch::Dtype dtype) {
  const auto tensor = torch::empty(shape, dtype);
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  for (std::size_t i = 0; i < tensor.nbytes(); ++i) {
    const auto byte = static_cast<unsigned char>(37 * i + 11);
    bytes[i] = dtype == torch::kBool ? byte & 1 : byte;
  }
  return tensor;
}

// How many pages of a tensor's memory are resident in this process's page tables.
std::size_t resident_kib_of(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      inside = begin <= wanted && wanted < end;
    std::size_t kib = 0;
    if (inside && std::sscanf(line.c_str(), "Rss: %zu kB", &kib) == 1) return kib;
  }
  return 0;
}

}  // namespace

TEST_SUITE("safetensors") {
  TEST_CASE(
      "tensors of every type and of ragged, scalar and empty shapes survive a round trip bit for "
      "bit") {
    const TemporaryFolder folder;
    NamedTensors tensors;
    for (const auto& dtype : lorapp::detail::kSafetensorsDtypes) {
      if (!dtype.torch) continue;
      const std::string name(dtype.name);
      tensors.emplace_back(name + ".ragged", pattern({3, 5, 7}, *dtype.torch));
      tensors.emplace_back(name + ".scalar", pattern({}, *dtype.torch));
      tensors.emplace_back(name + ".empty", pattern({4, 0}, *dtype.torch));
    }
    const auto path = folder / "all.safetensors";
    write_safetensors(path, tensors, {{"format", "pt"}, {"quote\"", "line\nbreak é"}});
    const auto file = SafetensorsFile::open(path);
    CHECK(file.metadata().at("quote\"") == "line\nbreak é");
    CHECK(file.names().size() == tensors.size());
    for (const auto& [key, tensor] : tensors) {
      const std::string& name = key;  // clang 14 captures no binding
      CAPTURE(name);
      CHECK(file.contains(name));
      CHECK(same_bytes(file.view(name), tensor));
    }
    write_safetensors(folder / "none.safetensors", {}, {});
    CHECK(read_file(folder / "none.safetensors") == raw_safetensors("{}      ", ""));
    CHECK(SafetensorsFile::open(folder / "none.safetensors").names().empty());
  }

  TEST_CASE("a file by the official writer is read, and written again byte for byte") {
    const auto file = SafetensorsFile::open(kGolden);
    CHECK(file.names().size() == 24);
    NamedTensors tensors;
    for (const auto& name : file.names()) {
      const torch::Tensor tensor = file.view(name);
      CHECK(same_bytes(tensor, pattern(tensor.sizes(), tensor.scalar_type())));
      tensors.emplace_back(name, tensor);
    }
    std::reverse(tensors.begin(), tensors.end());  // the order given does not matter
    const TemporaryFolder folder;
    write_safetensors(folder / "again.safetensors", tensors, file.metadata());
    CHECK(read_file(folder / "again.safetensors") == read_file(kGolden));
  }

  TEST_CASE(
      "views with gaps, transposed, conjugated and requiring gradients are written by value") {
    const TemporaryFolder folder;
    const auto base = torch::arange(24, torch::kFloat).view({4, 6});
    const auto complex = torch::complex(base, -base);
    write_safetensors(folder / "a.safetensors", {{"t", base.t()},
                                                 {"s", base.slice(1, 1, 6, 2)},
                                                 {"e", base[0].expand({3, 6})},
                                                 {"c", complex.conj()},
                                                 {"n", torch::imag(complex.conj())},
                                                 {"g", base.clone().requires_grad_()}});
    const auto file = SafetensorsFile::open(folder / "a.safetensors");
    CHECK(torch::equal(file.view("t"), base.t()));
    CHECK(torch::equal(file.view("s"), base.slice(1, 1, 6, 2)));
    CHECK(torch::equal(file.view("e"), base[0].expand({3, 6})));
    CHECK(torch::equal(file.view("c"), complex.conj()));
    CHECK(torch::equal(file.view("n"), base));
    CHECK(torch::equal(file.view("g"), base));
  }

  TEST_CASE("what cannot be written is refused with all reasons, and leaves no file") {
    const TemporaryFolder folder;
    const auto path = folder / "a.safetensors";
    const std::string message = error_of([&] {
      write_safetensors(path, {{"a", torch::ones({1})},
                               {"a", torch::ones({2})},
                               {"__metadata__", torch::ones({1})},
                               {"u", torch::Tensor()},
                               {"s", torch::ones({2, 2}).to_sparse()},
                               {"q", torch::zeros({1}, torch::kComplexDouble)}});
    });
    for (const char* part : {"5 problems", "\"a\" is given twice", "__metadata__",
                             "\"u\" is not defined", "\"s\" is not dense", "ComplexDouble"}) {
      CHECK_MESSAGE(contains(message, part), message);
    }
    CHECK(contains(error_of([&] {
                     write_safetensors(path, {{"\xff", torch::ones({1})}});
                   }),
                   "not UTF-8"));
    CHECK(std::filesystem::is_empty(folder.path()));
  }

  TEST_CASE("a wrong name and a wrong kind of file are errors that name them") {
    const TemporaryFolder folder;
    write_safetensors(folder / "a.safetensors", {{"a", torch::ones({1})}});
    const auto file = SafetensorsFile::open(folder / "a.safetensors");
    CHECK(contains(error_of([&] { file.view("b"); }),
                   "a.safetensors: has no tensor \"b\" among its 1"));
    CHECK_THROWS_AS(file.info("b"), Error);
    CHECK_THROWS_AS(file.release("b"), Error);
    CHECK(contains(error_of([&] { SafetensorsFile::open(folder / "no.safetensors"); }),
                   "No such file"));
    CHECK(contains(error_of([&] { SafetensorsFile::open(folder.path()); }), "not a regular file"));
    CHECK(contains(error_of([&] { SafetensorsFile::open("/dev/null"); }), "not a regular file"));
    CHECK(contains(error_of([&] { SafetensorsFile::open(folder.write("e", "")); }), "has 0 bytes"));
  }

  TEST_CASE("data that a foreign writer left unaligned are read by value") {
    const TemporaryFolder folder;
    const float values[] = {1.5f, -2.5f};
    std::string data = "x";
    data.append(reinterpret_cast<const char*>(values), sizeof values);
    const auto path = folder.write(
        "a.safetensors",
        raw_safetensors(
            R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
            data));
    const auto file = SafetensorsFile::open(path);
    const torch::Tensor tensor = file.view("f");
    CHECK(torch::equal(tensor, torch::tensor({1.5f, -2.5f})));
    CHECK(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % alignof(float) == 0);
  }

  TEST_CASE(
      "types that LibTorch has no element for are listed, and refused only when they are used") {
    const TemporaryFolder folder;
    const auto path = folder.write(
        "a.safetensors",
        raw_safetensors(
            R"({"f4":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},"u":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
            "abc"));
    const auto file = SafetensorsFile::open(path);
    CHECK(file.info("f4").shape == std::vector<std::int64_t>{4});
    CHECK(contains(error_of([&] { file.view("f4"); }), "\"f4\" is of type F4, elements of 4 bits"));
    CHECK(file.view("u").item<int>() == 'c');
  }

  TEST_CASE(
      "a view outlives its file object and the file's name, and two views share one mapping") {
    const TemporaryFolder folder;
    const auto path = folder / "a.safetensors";
    const auto values = torch::arange(5000, torch::kFloat);
    write_safetensors(path, {{"a", values}});
    torch::Tensor kept;
    {
      const auto file = SafetensorsFile::open(path);
      const auto first = file.view("a");
      kept = file.view("a").slice(0, 100);
      CHECK(first.const_data_ptr<float>() + 100 == kept.const_data_ptr<float>());
    }
    std::filesystem::remove(path);
    CHECK(torch::equal(kept, values.slice(0, 100)));
  }

  TEST_CASE("release drops the pages of a live view, which then reads the same values again") {
    const TemporaryFolder folder;
    const auto values = torch::arange(1 << 20, torch::kFloat);  // 4 MiB
    write_safetensors(folder / "a.safetensors", {{"a", values}, {"b", values}});
    const auto file = SafetensorsFile::open(folder / "a.safetensors");
    file.release("a");  // nothing mapped: nothing to do
    const torch::Tensor view = file.view("a");
    CHECK(torch::equal(view, values));
    CHECK(resident_kib_of(view.const_data_ptr()) >= 4096);
    file.release("a");
    CHECK(resident_kib_of(view.const_data_ptr()) < 1024);
    CHECK(torch::equal(view, values));
  }

  TEST_CASE("a file that was cut after it was opened is noticed before its tensors are mapped") {
    const TemporaryFolder folder;
    const auto path = folder / "a.safetensors";
    write_safetensors(path, {{"a", torch::ones({4096})}});
    const auto file = SafetensorsFile::open(path);
    std::filesystem::resize_file(path, 100);
    CHECK(contains(error_of([&] { file.view("a"); }), "was changed while in use"));
  }

  TEST_CASE("replacing a file while its views live leaves them as they were") {
    const TemporaryFolder folder;
    const auto path = folder / "a.safetensors";
    write_safetensors(path, {{"a", torch::ones({4096})}});
    const torch::Tensor view = SafetensorsFile::open(path).view("a");
    write_safetensors(path, {{"a", torch::zeros({8})}});
    CHECK(view.sum().item<float>() == 4096);
    CHECK(SafetensorsFile::open(path).view("a").numel() == 8);
  }
}
