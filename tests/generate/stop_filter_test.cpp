#include <lorapp/generate/stop_filter.hpp>

#include <doctest/doctest.h>

#include <string>

using lorapp::StopFilter;

TEST_SUITE("generate") {
  TEST_CASE("stop filter: without stop strings every piece passes at once") {
    StopFilter filter({});
    CHECK(filter.push("abc") == "abc");
    CHECK(filter.push("") == "");
    CHECK(filter.finish() == "");
    CHECK_FALSE(filter.stopped());
  }

  TEST_CASE("stop filter: a stop string across three pieces is found, and nothing of it passes") {
    StopFilter filter({"\n\n###"});
    CHECK(filter.push("end.\n") == "end.");
    CHECK(filter.push("\n#") == "");
    CHECK(filter.push("## more") == "");
    CHECK(filter.stopped());
    CHECK(filter.finish() == "");
    CHECK(filter.push("later") == "");
  }

  TEST_CASE("stop filter: what only began like a stop string passes as soon as that is known") {
    StopFilter filter({"aab"});
    CHECK(filter.push("a") == "");
    CHECK(filter.push("a") == "");
    CHECK(filter.push("a") == "a");  // "aa" may still become "aab"
    CHECK(filter.push("c") == "aac");
    CHECK(filter.push("xa") == "x");
    CHECK(filter.finish() == "a");
    CHECK_FALSE(filter.stopped());
  }

  TEST_CASE("stop filter: of several stop strings the one that appears first in the text counts") {
    StopFilter filter({"world", "hello", "ell"});
    CHECK(filter.push("say hello world") == "say ");
    CHECK(filter.stopped());
  }

  TEST_CASE("stop filter: the pieces joined are the text before the stop, however it is cut") {
    const std::string text = "ababcababdab";
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      CAPTURE(cut);
      StopFilter filter({"babd"});
      std::string out;
      for (std::size_t i = 0; i < text.size(); i += cut) out += filter.push(text.substr(i, cut));
      out += filter.finish();
      CHECK(out == "ababca");
      CHECK(filter.stopped());
    }
  }
}
