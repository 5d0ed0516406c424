// The expressions of a chat template: from the tree to values.
#pragma once

#include <lorapp/data/jinja_filters.hpp>
#include <lorapp/data/jinja_node.hpp>
#include <lorapp/data/jinja_scope.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

inline constexpr int kMaxCallDepth = 400;  ///< nodes within each other, through macros too

inline constexpr std::string_view kFunctions[] = {"range", "dict", "namespace", "raise_exception",
                                                  "strftime_now"};

/// What strftime_now gives for a time. Fails for a conversion that Python's strftime lacks.
inline std::string format_time(const std::string& format, std::time_t time) {
  constexpr std::string_view kConversions = "aAwdbBmyYHIpMSjUWcxX%eFTDR";
  constexpr std::size_t kMost = 256;
  if (format.size() > kMost)
    fail("strftime_now: a format of ", format.size(), " bytes, expected at most ", kMost);
  for (std::size_t at = format.find('%'); at != std::string::npos; at = format.find('%', at + 2)) {
    if (at + 1 >= format.size() || kConversions.find(format[at + 1]) == std::string_view::npos)
      fail("strftime_now: %", format.substr(at + 1, 1),
           " is not supported; supported: ", kConversions);
  }
  std::tm parts{};
  localtime_r(&time, &parts);
  std::array<char, 64 * kMost> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format.c_str(), &parts)};
}

class Evaluator {
 protected:
  Evaluator(Scope::Variables variables, std::size_t budget, std::time_t now)
      : budget_(budget), scope_(std::move(variables)), now_(now) {}
  virtual ~Evaluator() = default;

  /// Runs a macro. The statements are the derived class's.
  virtual Value call_macro(const Node& macro, const Arguments& arguments) = 0;

  // Counts how deep nodes stand in each other, and remembers the line for errors.
  class Step {
   public:
    Step(Evaluator& evaluator, const Node& node) : evaluator_(evaluator) {
      evaluator.line_ = node.line;
      evaluator.budget_.spend(1);
      if (++evaluator.depth_ > kMaxCallDepth)
        fail("macros call each other, or blocks are nested, deeper than ", kMaxCallDepth);
    }
    ~Step() { --evaluator_.depth_; }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    Evaluator& evaluator_;
  };

  Value eval(const Node& node) {
    const Step step(*this, node);
    switch (node.kind) {
      case NodeKind::constant:
        return node.value;
      case NodeKind::variable:
        return variable(node.name);
      case NodeKind::list:
        return Value::list(eval_all(node));
      case NodeKind::tuple:
        return Value::list(eval_all(node), ListShape::tuple);
      case NodeKind::dict:
        return dict(node);
      case NodeKind::attribute:
        return attribute(eval(*node.children[0]), node.name);
      case NodeKind::item: {
        const Value object = eval(*node.children[0]);
        return item(object, eval(*node.children[1]));
      }
      case NodeKind::slice:
        return slice(node);
      case NodeKind::call: {
        const Value callee = eval(*node.children[0]);
        return call(callee, arguments_of(node), node);
      }
      case NodeKind::filter: {
        const Value value = eval(*node.children[0]);
        return apply_filter(node.name, value, arguments_of(node), budget_);
      }
      case NodeKind::test: {
        const Value value = eval(*node.children[0]);
        return apply_test(node.name, value, arguments_of(node), budget_) != node.flag;
      }
      case NodeKind::unary:
        return unary(node);
      case NodeKind::binary:
        return binary(node);
      case NodeKind::compare:
        return compare(node);
      case NodeKind::both:
      case NodeKind::either: {
        Value left = eval(*node.children[0]);
        return left.truth() == (node.kind == NodeKind::either) ? left : eval(*node.children[1]);
      }
      case NodeKind::conditional:
        if (eval(*node.children[0]).truth()) return eval(*node.children[1]);
        return node.children[2] ? eval(*node.children[2])
                                : Value::undefined("the value of an if without an else");
      default:
        fail("a statement stands in an expression");
    }
  }

  Arguments arguments_of(const Node& node) {
    Arguments arguments;
    const std::size_t first_named = node.children.size() - node.names.size();
    for (std::size_t i = 1; i < node.children.size(); ++i) {
      Value value = eval(*node.children[i]);
      if (i < first_named) {
        arguments.values.push_back(std::move(value));
      } else {
        arguments.named.emplace_back(node.names[i - first_named], std::move(value));
      }
    }
    return arguments;
  }

  Budget budget_;
  Scope scope_;
  int line_ = 1;
  int depth_ = 0;
  std::deque<Namespace> namespaces_;

 private:
  std::vector<Value> eval_all(const Node& node) {
    std::vector<Value> values;
    for (const NodePtr& child : node.children) values.push_back(eval(*child));
    budget_.spend(4 * values.size());
    return values;
  }

  Value variable(const std::string& name) {
    if (const Value* found = scope_.find(name, budget_)) return *found;
    for (const std::string_view function : kFunctions)
      if (name == function) return Value::Function{function};
    return Value::undefined("'" + name.substr(0, 60) + "'");
  }

  Value dict(const Node& node) {
    std::vector<std::pair<Value, Value>> items;
    for (std::size_t i = 0; i < node.children.size(); i += 2) {
      const Value key = eval(*node.children[i]);
      set_key(items, key, eval(*node.children[i + 1]));
    }
    return Value::dict(std::move(items));
  }

  void set_key(std::vector<std::pair<Value, Value>>& items, const Value& key, Value value) {
    if (key.depth() > 0 || key.is_undefined()) fail("a dict's key is ", key.kind());
    budget_.spend(4);
    for (auto& [known, old] : items) {
      if (!equal(known, key, budget_)) continue;
      old = std::move(value);
      return;
    }
    items.emplace_back(key, std::move(value));
  }

  // object.name: what Python has under the name, then the item.
  Value attribute(const Value& object, const std::string& name) {
    if (object.is_undefined()) fail("cannot read '.", name.substr(0, 60), "' of ", object.kind());
    if (const auto* loop = object.get<Value::Loop>()) return loop_attribute(**loop, object, name);
    const bool method =
        (object.text() && is_text_method(name)) || (object.dict() && is_dict_method(name));
    if (method) return std::make_shared<const MethodData>(MethodData{object, name});
    return item_of(object, Value::text(name), budget_);
  }

  Value loop_attribute(const LoopData& loop, const Value& object, const std::string& name) {
    const std::size_t size = loop.items.size();
    const auto number = [](std::size_t value) { return Value(static_cast<std::int64_t>(value)); };
    if (name == "index") return number(loop.index + 1);
    if (name == "index0") return number(loop.index);
    if (name == "revindex") return number(size - loop.index);
    if (name == "revindex0") return number(size - loop.index - 1);
    if (name == "first") return loop.index == 0;
    if (name == "last") return loop.index + 1 == size;
    if (name == "length") return number(size);
    if (name == "depth") return number(1);  // of recursive loops, which are not supported
    if (name == "depth0") return number(0);
    if (name == "previtem")
      return loop.index > 0 ? loop.items[loop.index - 1] : Value::undefined("loop.previtem");
    if (name == "nextitem")
      return loop.index + 1 < size ? loop.items[loop.index + 1] : Value::undefined("loop.nextitem");
    if (name == "cycle") return std::make_shared<const MethodData>(MethodData{object, name});
    if (name == "changed") fail("loop.changed is not supported");
    return Value::undefined("loop." + name.substr(0, 60));
  }

  // object[key]: the item, then what Python has under the name.
  Value item(const Value& object, const Value& key) {
    Value found = item_of(object, key, budget_);
    if (!found.is_undefined() || key.text() == nullptr) return found;
    return object.dict() || object.get<Namespace*>() ? found
                                                     : attribute(object, key.text()->text());
  }

  Value slice(const Node& node) {
    const Value object = eval(*node.children[0]);
    std::array<Value, 3> parts;
    std::array<const std::int64_t*, 3> bounds{};
    for (std::size_t i = 0; i < 3; ++i) {
      if (!node.children[i + 1]) continue;
      parts[i] = eval(*node.children[i + 1]);
      if (parts[i].is_none()) continue;
      (void)need_integer(parts[i], "a bound of a slice");
      bounds[i] = parts[i].integer();
    }
    const std::int64_t step = bounds[2] != nullptr ? *bounds[2] : 1;
    if (step == 0) fail("the step of a slice is 0");
    if (object.text()) return slice_text(*object.text(), bounds[0], bounds[1], step, budget_);
    const ListData* list = object.list();
    if (list == nullptr || list->shape == ListShape::iterator)
      fail("cannot slice ",
           list ? std::string("an iterator; |list makes a list of it") : object.kind());
    std::vector<Value> items;
    budget_.spend(4 * list->items.size());
    const auto size = static_cast<std::int64_t>(list->items.size());
    for (const std::size_t i : slice_indices(size, bounds[0], bounds[1], step))
      items.push_back(list->items[i]);
    return Value::list(std::move(items), list->shape);
  }

  Value unary(const Node& node) {
    const Value value = eval(*node.children[0]);
    if (node.name == "not") return !value.truth();
    if (!value.is_number()) fail("cannot compute ", node.name, " of ", value.kind());
    return arithmetic("*", value, std::int64_t{node.name == "-" ? -1 : 1}, budget_);
  }

  Value binary(const Node& node) {
    const Value left = eval(*node.children[0]);
    const Value right = eval(*node.children[1]);
    if (node.name != "~") return arithmetic(node.name, left, right, budget_);
    TextBuilder out(budget_);
    write_text(left, out);
    write_text(right, out);
    return out.value();
  }

  Value compare(const Node& node) {
    Value left = eval(*node.children[0]);
    for (std::size_t i = 0; i < node.names.size(); ++i) {
      Value right = eval(*node.children[i + 1]);
      if (!holds(node.names[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  bool holds(const std::string& op, const Value& left, const Value& right) {
    if (op == "==") return equal(left, right, budget_);
    if (op == "!=") return !equal(left, right, budget_);
    if (op == "<") return less(left, right, budget_);
    if (op == ">") return less(right, left, budget_);
    if (op == "<=") return less(left, right, budget_) || equal(left, right, budget_);
    if (op == ">=") return less(right, left, budget_) || equal(left, right, budget_);
    return contains(right, left, budget_) == (op == "in");
  }

  Value call(const Value& callee, const Arguments& arguments, const Node& node) {
    line_ = node.line;
    if (const auto* function = callee.get<Value::Function>())
      return call_function(function->name, arguments);
    if (const auto* macro = callee.get<const Node*>()) return call_macro(**macro, arguments);
    const auto* method = callee.get<Value::Method>();
    if (method == nullptr) fail("cannot call ", callee.kind());
    const auto& [object, name] = **method;
    if (object.text()) return call_text_method(object, name, arguments, budget_);
    if (object.dict()) return call_dict_method(object, name, arguments, budget_);
    const auto* loop = object.get<Value::Loop>();  // cycle
    if (arguments.values.empty()) fail("loop.cycle needs a value");
    return arguments.values[(*loop)->index % arguments.values.size()];
  }

  Value call_function(std::string_view name, const Arguments& arguments) {
    if (name == "raise_exception") {
      const Value message = to_text(arguments.bind(name, {"message"})[0], budget_);
      fail("the template does not accept this: ", message.text()->text().substr(0, 1000));
    }
    if (name == "strftime_now") {
      const Value format = arguments.bind(name, {"format"})[0];
      return Value::text(format_time(need_text(format, "strftime_now").text(), now_));
    }
    if (name == "range") return range(arguments);
    std::vector<std::pair<Value, Value>> items;
    if (arguments.values.size() > 1)
      fail(name, " takes one value at most, found ", arguments.values.size());
    if (!arguments.values.empty()) {
      if (!arguments.values[0].dict())
        fail(name, " of ", arguments.values[0].kind(), ", expected a dict");
      items = arguments.values[0].dict()->items;
    }
    for (const auto& [key, value] : arguments.named) set_key(items, Value::text(key), value);
    if (name == "dict") return Value::dict(std::move(items));
    Namespace& space = namespaces_.emplace_back();
    for (auto& [key, value] : items)
      space.items.emplace_back(need_text(key, "a name in a namespace").text(), std::move(value));
    return &space;
  }

  Value range(const Arguments& arguments) {
    const auto bound = arguments.bind("range", {"start", "stop", "step"});
    const bool one = bound[1].is_undefined();
    const std::int64_t first = one ? 0 : need_integer(bound[0], "range: start");
    const std::int64_t last = need_integer(one ? bound[0] : bound[1], "range: stop");
    const std::int64_t step = integer_or(bound[2], 1, "range: step");
    if (step == 0) fail("range: the step is 0");
    std::vector<Value> items;
    for (std::int64_t i = first; step > 0 ? i < last : i > last;) {
      budget_.spend(4);
      items.emplace_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return Value::list(std::move(items));
  }

  std::time_t now_;
};

}  // namespace lorapp::detail::jinja
