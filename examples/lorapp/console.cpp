#include "console.hpp"

#include <iostream>
#include <string>

namespace lorapp::program {

namespace {

/// A stream that drops everything.
std::ostream& nowhere() {
  static std::ostream stream(nullptr);
  return stream;
}

void print_fields(const Json& object, const std::string& indent) {
  for (const auto& [name, value] : object.items()) {
    std::cout << indent << name << ":";
    if (value.is_object() && !value.empty()) {
      std::cout << '\n';
      print_fields(value, indent + "  ");
    } else if (value.is_array() && !value.empty() && value.front().is_object()) {
      std::cout << '\n';
      for (const Json& element : value) std::cout << indent << "  " << to_line(element) << '\n';
    } else {
      std::cout << ' ' << (value.is_string() ? value.get<std::string>() : to_line(value)) << '\n';
    }
  }
}

}  // namespace

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::ostream& Console::progress() const { return quiet_ ? nowhere() : std::cerr; }

void Console::result(const Json& object) const {
  if (json_) {
    std::cout << to_line(object) << '\n';
  } else {
    print_fields(object, "");
  }
}

}  // namespace lorapp::program
