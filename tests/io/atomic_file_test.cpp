// Files and folders that appear whole or not at all.
#include "atomic_file.hpp"

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>

#include "raw_safetensors.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace fs = std::filesystem;
using lorapp::Error;
using lorapp::detail::AtomicDirectory;
using lorapp::detail::AtomicFile;
using lorapp::detail::write_file_atomically;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::read_file;
using lorapp::test::TemporaryFolder;

namespace {

std::size_t count_entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Runs `call` in a child whose files cannot grow beyond `bytes`, as on a disk that fills up. Exit
// status 0: it threw an Error that holds `expected`.
template <class Call>
int status_with_file_limit(rlim_t bytes, const std::string& expected, Call call) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    int status = ::setrlimit(RLIMIT_FSIZE, &limit) == 0 ? 1 : 2;
    if (status == 1) {
      try {
        call();
        status = 3;
      } catch (const Error& error) {
        status = contains(error.what(), expected) ? 0 : 4;
      } catch (...) {
        status = 5;
      }
    }
    ::_exit(status);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_SUITE("atomic_file") {
  TEST_CASE("a file appears with its whole content, and only its own name is left in the folder") {
    const TemporaryFolder folder;
    const fs::path path = folder / "a.txt";
    AtomicFile file(path);
    file.write("half ");
    CHECK_FALSE(fs::exists(path));
    file.write("whole");
    file.commit();
    CHECK(read_file(path) == "half whole");
    CHECK(count_entries(folder.path()) == 1);
  }

  TEST_CASE("a file that is not committed leaves the old one and no trace") {
    const TemporaryFolder folder;
    const fs::path path = folder.write("a.txt", "old");
    {
      AtomicFile file(path);
      file.write("new");
    }
    CHECK(read_file(path) == "old");
    CHECK(count_entries(folder.path()) == 1);
    write_file_atomically(path, "new");
    CHECK(read_file(path) == "new");
    write_file_atomically(path, "");
    CHECK(read_file(path).empty());
  }

  TEST_CASE("a new file has the permissions that the umask leaves") {
    const TemporaryFolder folder;
    const fs::path path = folder / "a.txt";
    const mode_t mask = ::umask(027);
    write_file_atomically(path, "x");
    ::umask(mask);
    CHECK(fs::status(path).permissions() == static_cast<fs::perms>(0640));
  }

  TEST_CASE(
      "a missing folder, a folder as the target and use after the end are errors that name the "
      "file") {
    const TemporaryFolder folder;
    const std::string missing = error_of([&] { write_file_atomically(folder / "no/a.txt", "x"); });
    CHECK(contains(missing, "no/a.txt"));
    CHECK(contains(missing, "No such file or directory"));
    CHECK(contains(error_of([&] { write_file_atomically(folder.path(), "x"); }), "is a folder"));
    CHECK_THROWS_AS(write_file_atomically("", "x"), Error);
    AtomicFile file(folder / "a.txt");
    file.commit();
    CHECK_THROWS_AS(file.write("x"), Error);
    CHECK_THROWS_AS(file.commit(), Error);
    CHECK(count_entries(folder.path()) == 1);
  }

  TEST_CASE(
      "a full disk is an error that names the file and the reason, keeps the old file and leaves "
      "nothing else") {
    const TemporaryFolder folder;
    const fs::path path = folder.write("a.bin", "old");
    const int status =
        status_with_file_limit(4096, "a.bin: cannot be written: File too large",
                               [&] { write_file_atomically(path, std::string(10000, 'x')); });
    CHECK(status == 0);
    CHECK(read_file(path) == "old");
    CHECK(count_entries(folder.path()) == 1);

    const int tensors = status_with_file_limit(4096, "b.safetensors: cannot be written", [&] {
      lorapp::write_safetensors(folder / "b.safetensors", {{"w", torch::zeros({64, 64})}});
    });
    CHECK(tensors == 0);
    CHECK(count_entries(folder.path()) == 1);
  }

  TEST_CASE("a folder appears with everything in it, or not at all") {
    const TemporaryFolder folder;
    const fs::path target = folder / "deep/er/out";
    {
      AtomicDirectory unfinished(target);
      write_file_atomically(unfinished.path() / "a.txt", "a");
    }
    CHECK(count_entries(folder / "deep/er") == 0);
    AtomicDirectory directory(target / "");  // a slash at the end means the same folder
    fs::create_directory(directory.path() / "sub");
    write_file_atomically(directory.path() / "sub/b.txt", "b");
    CHECK_FALSE(fs::exists(target));
    directory.commit();
    CHECK(read_file(target / "sub/b.txt") == "b");
    CHECK(count_entries(folder / "deep/er") == 1);
    CHECK_THROWS_AS(directory.commit(), Error);
  }

  TEST_CASE("an empty folder is filled, another is replaced only when that was asked for") {
    const TemporaryFolder folder;
    const fs::path target = folder / "out";
    fs::create_directory(target);
    {
      AtomicDirectory directory(target);
      write_file_atomically(directory.path() / "first", "1");
      directory.commit();
    }
    CHECK(fs::exists(target / "first"));
    CHECK(
        contains(error_of([&] { AtomicDirectory again(target); }), "out: the folder is not empty"));
    {
      AtomicDirectory directory(target, AtomicDirectory::Existing::replace);
      write_file_atomically(directory.path() / "second", "2");
      CHECK(fs::exists(target / "first"));
      directory.commit();
    }
    CHECK_FALSE(fs::exists(target / "first"));
    CHECK(fs::exists(target / "second"));
    CHECK(count_entries(folder.path()) == 1);
    // One that fills up meanwhile is not overwritten.
    AtomicDirectory late(folder / "late");
    folder.write("late/other", "x");
    CHECK_THROWS_AS(late.commit(), Error);
    CHECK(fs::exists(folder / "late/other"));
  }

  TEST_CASE("a folder that someone removed while it was filled is an error that names the target") {
    const TemporaryFolder folder;
    AtomicDirectory directory(folder / "out");
    fs::remove_all(directory.path());
    CHECK(contains(error_of([&] { directory.commit(); }), "out: cannot be finished"));
    CHECK_FALSE(fs::exists(folder / "out"));
  }

  TEST_CASE("a file where the folder should be, or no name at all, is an error") {
    const TemporaryFolder folder;
    folder.write("file", "x");
    CHECK(contains(error_of([&] { AtomicDirectory bad(folder / "file"); }), "is not a folder"));
    CHECK_THROWS_AS(AtomicDirectory(""), Error);
    CHECK_THROWS_AS(AtomicDirectory(folder / "file/sub"), Error);
    CHECK(count_entries(folder.path()) == 1);
  }
}
