// The statements of a chat template: from the tree to marked text.
#pragma once

#include <lorapp/data/jinja_evaluator.hpp>
#include <lorapp/data/jinja_parser.hpp>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// Steps that a template may take for a text of `bytes` bytes: far more than any real one needs,
/// and few enough to end within seconds.
inline std::size_t allowed_steps(std::size_t bytes) { return (std::size_t{4} << 20) + 4 * bytes; }

class Interpreter : private Evaluator {
 public:
  /// The text that a template makes of its variables. Fails as "line N: what is wrong".
  static MarkedText run(const Body& program,
                        Scope::Variables variables,
                        std::size_t steps,
                        std::time_t now) {
    Interpreter interpreter(std::move(variables), steps, now);
    try {
      TextBuilder out(interpreter.budget_);
      (void)interpreter.exec(program, out);
      return out.take();
    } catch (const Failure& failure) {
      fail_at(interpreter.line_, failure.what());
    }
  }

 private:
  using Evaluator::Evaluator;
  enum class Flow { normal, stop, next };

  Flow exec(const Body& body, TextBuilder& out) {
    for (const NodePtr& node : body) {
      const Flow flow = exec(*node, out);
      if (flow != Flow::normal) return flow;
    }
    return Flow::normal;
  }

  Flow exec(const Node& node, TextBuilder& out) {
    const Step step(*this, node);
    switch (node.kind) {
      case NodeKind::text:
        out.append(*node.value.text());
        break;
      case NodeKind::print:
        write_text(eval(*node.children[0]), out);
        break;
      case NodeKind::branch:
        return branch(node, out);
      case NodeKind::loop:
        return loop(node, out);
      case NodeKind::assign:
        assign(node.names, eval(*node.children[0]));
        break;
      case NodeKind::assign_item:
        assign_item(node);
        break;
      case NodeKind::capture: {
        Value text = Value::text(captured(node));
        if (node.children[0]) text = filtered(*node.children[0], std::move(text));
        scope_.set(node.names[0], std::move(text), budget_);
        break;
      }
      case NodeKind::filtered:
        write_text(filtered(*node.children[0], Value::text(captured(node))), out);
        break;
      case NodeKind::scope: {
        std::vector<Value> values;
        for (const NodePtr& child : node.children) values.push_back(eval(*child));
        const Scope::Frame frame(scope_);
        for (std::size_t i = 0; i < values.size(); ++i)
          scope_.set(node.names[i], std::move(values[i]), budget_);
        return exec(node.bodies[0], out);
      }
      case NodeKind::macro:
        scope_.set(node.name, Value(&node), budget_);
        break;
      case NodeKind::generation:
        out.append(captured(node).as_generation());
        break;
      case NodeKind::stop:
        return Flow::stop;
      case NodeKind::next:
        return Flow::next;
      default:
        fail("an expression stands where a statement belongs");
    }
    return Flow::normal;
  }

  Flow branch(const Node& node, TextBuilder& out) {
    for (std::size_t i = 0; i < node.children.size(); ++i)
      if (eval(*node.children[i]).truth()) return exec(node.bodies[i], out);
    const bool has_else = node.bodies.size() > node.children.size();
    return has_else ? exec(node.bodies.back(), out) : Flow::normal;
  }

  // What a body writes, by itself. A break or continue in it ends it.
  MarkedText captured(const Node& node) {
    const Scope::Frame frame(scope_);
    TextBuilder text(budget_);
    (void)exec(node.bodies[0], text);
    return text.take();
  }

  // A chain of filters whose innermost has no value of its own.
  Value filtered(const Node& chain, Value value) {
    const Step step(*this, chain);
    if (chain.children[0]) value = filtered(*chain.children[0], std::move(value));
    return apply_filter(chain.name, value, arguments_of(chain), budget_);
  }

  void assign(const std::vector<std::string>& names, Value value) {
    if (names.size() == 1) return scope_.set(names[0], std::move(value), budget_);
    const std::vector<Value> items = items_of(value, budget_);
    if (items.size() != names.size())
      fail("found ", items.size(), " values for ", names.size(), " names");
    for (std::size_t i = 0; i < names.size(); ++i) scope_.set(names[i], items[i], budget_);
  }

  void assign_item(const Node& node) {
    Value value = eval(*node.children[0]);
    const Value* object = scope_.find(node.names[0], budget_);
    const auto* space = object != nullptr ? object->get<Namespace*>() : nullptr;
    if (space == nullptr)
      fail("cannot set '.", node.names[1], "' of '", node.names[0], "', which is ",
           object != nullptr ? object->kind() : std::string("not defined"),
           "; expected a namespace");
    auto& items = (*space)->items;
    budget_.spend(items.size() / 4 + 1);
    const auto it = std::find_if(items.begin(), items.end(),
                                 [&](const auto& item) { return item.first == node.names[1]; });
    if (it != items.end()) {
      it->second = std::move(value);
    } else {
      items.emplace_back(node.names[1], std::move(value));
    }
  }

  Flow loop(const Node& node, TextBuilder& out) {
    std::vector<Value> items = items_of(eval(*node.children[0]), budget_);
    if (node.children[1]) {
      std::vector<Value> kept;
      for (Value& item : items) {
        const Scope::Frame frame(scope_);
        assign(node.names, item);
        if (eval(*node.children[1]).truth()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) return node.bodies.size() > 1 ? exec(node.bodies[1], out) : Flow::normal;
    auto state = std::make_shared<LoopData>();
    for (const Value& item : items) state->depth = std::max(state->depth, deeper(item.depth()));
    state->items = std::move(items);
    for (; state->index < state->items.size(); ++state->index) {
      const Scope::Frame frame(scope_);
      assign(node.names, state->items[state->index]);
      scope_.set("loop", Value::Loop(state), budget_);
      if (exec(node.bodies[0], out) == Flow::stop) break;
    }
    return Flow::normal;
  }

  Value call_macro(const Node& macro, const Arguments& arguments) override {
    const std::size_t count = macro.names.size(), defaults = macro.children.size();
    if (arguments.values.size() > count)
      fail("the macro '", macro.name, "' takes ", count, " arguments, found ",
           arguments.values.size());
    const Scope::Frame frame(scope_, /*macro=*/true);
    std::vector<Value> values = arguments.values;
    values.resize(count);
    for (const auto& [name, value] : arguments.named) {
      const auto it = std::find(macro.names.begin(), macro.names.end(), name);
      if (it == macro.names.end())
        fail("the macro '", macro.name, "' has no argument '", name, "'");
      values[static_cast<std::size_t>(it - macro.names.begin())] = value;
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (values[i].is_undefined() && i + defaults >= count)
        values[i] = eval(*macro.children[i + defaults - count]);
      scope_.set(macro.names[i], std::move(values[i]), budget_);
    }
    TextBuilder text(budget_);
    (void)exec(macro.bodies[0], text);
    return text.value();
  }
};

}  // namespace lorapp::detail::jinja
