// The expressions of a chat template: from words to the tree, with Jinja's precedence.
#pragma once

#include <lorapp/data/jinja_cursor.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// Reads expressions off a list of words.
class ExpressionParser : public TokenCursor {
 protected:
  using TokenCursor::TokenCursor;

  /// One expression, with `a if b else c` unless `conditional` is false.
  NodePtr expression(bool conditional = true) {
    const Nesting nesting(*this);
    NodePtr node = either();
    while (conditional && peek().is_name("if")) {
      NodePtr choice = make(NodeKind::conditional);
      take();
      choice->children.push_back(either());
      choice->children.push_back(std::move(node));
      choice->children.push_back(take_name("else") ? expression() : nullptr);
      node = finish(std::move(choice));
    }
    return node;
  }

  /// An expression, or several with commas between them, which are a tuple.
  NodePtr tuple(bool conditional = true) {
    NodePtr first = expression(conditional);
    if (!peek().is_op(",")) return first;
    NodePtr node = make(NodeKind::tuple);
    node->children.push_back(std::move(first));
    while (take_op(",")) {
      if (ends_expression()) break;
      node->children.push_back(expression(conditional));
    }
    return finish(std::move(node));
  }

  /// The filters that follow a value, `value` being null in a filter block's.
  NodePtr filter(NodePtr value) {
    NodePtr node = make(NodeKind::filter);
    node->name = expect_name();
    node->children.push_back(std::move(value));
    if (take_op("(")) arguments(*node);
    return finish(std::move(node));
  }

 private:
  bool ends_expression() const {
    const Token& token = peek();
    return token.kind == TokenKind::block_end || token.kind == TokenKind::print_end ||
           token.kind == TokenKind::end || token.is_op(")") || token.is_op("]") ||
           token.is_op("=") || token.is_name("in");
  }

  // One operator between two operands, from the left.
  template <class Operand>
  NodePtr chain(std::initializer_list<std::string_view> ops, const Operand& operand) {
    NodePtr left = operand();
    for (;;) {
      const auto is = [this](std::string_view op) { return peek().is_op(op); };
      if (std::none_of(ops.begin(), ops.end(), is)) return left;
      NodePtr node = make(NodeKind::binary);
      node->name = take().text;
      node->children.push_back(std::move(left));
      node->children.push_back(operand());
      left = finish(std::move(node));
    }
  }

  NodePtr either() {
    NodePtr left = both();
    while (peek().is_name("or")) left = joined(NodeKind::either, std::move(left));
    return left;
  }
  NodePtr both() {
    NodePtr left = negation();
    while (peek().is_name("and")) left = joined(NodeKind::both, std::move(left));
    return left;
  }
  NodePtr joined(NodeKind kind, NodePtr left) {
    NodePtr node = make(kind);
    take();
    node->children.push_back(std::move(left));
    node->children.push_back(kind == NodeKind::either ? both() : negation());
    return finish(std::move(node));
  }

  NodePtr negation() {
    if (!peek().is_name("not")) return comparison();
    const Nesting nesting(*this);
    NodePtr node = make(NodeKind::unary);
    node->name = take().text;
    node->children.push_back(negation());
    return finish(std::move(node));
  }

  // The operator of a comparison that stands here, empty if there is none.
  std::string comparison_operator() {
    for (const std::string_view op : {"==", "!=", "<=", ">=", "<", ">"})
      if (take_op(op)) return std::string(op);
    if (take_name("in")) return "in";
    if (peek().is_name("not") && peek(1).is_name("in")) {
      take();
      take();
      return "not in";
    }
    return {};
  }

  NodePtr comparison() {
    NodePtr left = sum();
    NodePtr node = make(NodeKind::compare);
    for (std::string op = comparison_operator(); !op.empty(); op = comparison_operator()) {
      node->names.push_back(std::move(op));
      node->children.push_back(sum());
    }
    if (node->names.empty()) return left;
    node->children.insert(node->children.begin(), std::move(left));
    return finish(std::move(node));
  }

  NodePtr sum() {
    return chain({"+", "-"}, [this] { return joined_text(); });
  }
  NodePtr joined_text() {
    return chain({"~"}, [this] { return product(); });
  }
  NodePtr product() {
    return chain({"*", "//", "/", "%"}, [this] { return power(); });
  }
  NodePtr power() {
    return chain({"**"}, [this] { return unary(true); });
  }

  NodePtr unary(bool with_filters) {
    if (!peek().is_op("-") && !peek().is_op("+")) {
      NodePtr node = postfix(primary());
      return with_filters ? filters(std::move(node)) : std::move(node);
    }
    const Nesting nesting(*this);
    NodePtr node = make(NodeKind::unary);
    node->name = take().text;
    node->children.push_back(unary(false));
    node = finish(std::move(node));
    return with_filters ? filters(std::move(node)) : std::move(node);
  }

  NodePtr constant(Value value) {
    NodePtr node = make(NodeKind::constant);
    node->value = std::move(value);
    take();
    return node;
  }

  template <class Number>
  NodePtr number() {
    const std::string& digits = peek().text;
    Number value{};
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (result.ec != std::errc{} || result.ptr != digits.data() + digits.size())
      fail_at(peek().line, concat("the number ", digits.substr(0, 40), " is out of range"));
    return constant(value);
  }

  NodePtr primary() {
    const Token& token = peek();
    switch (token.kind) {
      case TokenKind::name:
        if (token.text == "true" || token.text == "True") return constant(true);
        if (token.text == "false" || token.text == "False") return constant(false);
        if (token.text == "none" || token.text == "None") return constant(Value::none());
        {
          NodePtr node = make(NodeKind::variable);
          node->name = take().text;
          return node;
        }
      case TokenKind::string: {
        NodePtr node = make(NodeKind::constant);
        std::string text;
        while (peek().kind == TokenKind::string) text += take().text;
        node->value = Value::text(std::move(text));
        return node;
      }
      case TokenKind::integer:
        return number<std::int64_t>();
      case TokenKind::real:
        return number<double>();
      default:
        if (token.is_op("(")) return parentheses();
        if (token.is_op("[")) return list();
        if (token.is_op("{")) return dict();
        expected("an expression");
    }
  }

  NodePtr parentheses() {
    take();
    if (peek().is_op(")")) {
      NodePtr empty = make(NodeKind::tuple);
      take();
      return empty;
    }
    NodePtr node = tuple();
    expect_op(")");
    return node;
  }

  NodePtr list() {
    NodePtr node = make(NodeKind::list);
    take();
    while (!peek().is_op("]")) {
      node->children.push_back(expression());
      if (!take_op(",")) break;
    }
    expect_op("]");
    return finish(std::move(node));
  }

  NodePtr dict() {
    NodePtr node = make(NodeKind::dict);
    take();
    while (!peek().is_op("}")) {
      node->children.push_back(expression());
      expect_op(":");
      node->children.push_back(expression());
      if (!take_op(",")) break;
    }
    expect_op("}");
    return finish(std::move(node));
  }

  // .name, [item], [a:b:c] and (arguments), as many as follow.
  NodePtr postfix(NodePtr node) {
    for (;;) {
      if (peek().is_op(".")) {
        NodePtr outer = make(NodeKind::attribute);
        take();
        if (peek().kind == TokenKind::integer) {
          outer->kind = NodeKind::item;
          outer->children.push_back(std::move(node));
          outer->children.push_back(number<std::int64_t>());
        } else {
          outer->name = expect_name();
          outer->children.push_back(std::move(node));
        }
        node = finish(std::move(outer));
      } else if (peek().is_op("[")) {
        node = subscript(std::move(node));
      } else if (peek().is_op("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  NodePtr call(NodePtr callee) {
    NodePtr node = make(NodeKind::call);
    take();
    node->children.push_back(std::move(callee));
    arguments(*node);
    return finish(std::move(node));
  }

  NodePtr subscript(NodePtr object) {
    NodePtr node = make(NodeKind::item);
    take();
    node->children.push_back(std::move(object));
    const auto part = [this] {
      return peek().is_op(":") || peek().is_op("]") ? nullptr : expression();
    };
    NodePtr first = part();
    if (!peek().is_op(":")) {
      if (!first) expected("an index");
      node->children.push_back(std::move(first));
    } else {
      node->kind = NodeKind::slice;
      node->children.push_back(std::move(first));
      for (int i = 0; i < 2; ++i) node->children.push_back(take_op(":") ? part() : nullptr);
    }
    expect_op("]");
    return finish(std::move(node));
  }

  // What stands between "(" and ")", the first of which is taken: values, then name=value.
  void arguments(Node& node) {
    while (!peek().is_op(")")) {
      if (peek().is_op("*") || peek().is_op("**"))
        fail_at(peek().line, "arguments from a list (*, **) are not supported");
      if (peek().kind == TokenKind::name && peek(1).is_op("=")) {
        node.names.push_back(take().text);
        take();
      } else if (!node.names.empty()) {
        expected("name=value: arguments without a name come first");
      }
      node.children.push_back(expression());
      if (!take_op(",")) break;
    }
    expect_op(")");
  }

  NodePtr filters(NodePtr node) {
    for (;;) {
      if (take_op("|")) {
        node = filter(std::move(node));
      } else if (peek().is_name("is")) {
        node = test(std::move(node));
      } else if (peek().is_op("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  NodePtr test(NodePtr value) {
    take();
    NodePtr node = make(NodeKind::test);
    node->flag = take_name("not");
    node->name = expect_name();
    node->children.push_back(std::move(value));
    const Token& next = peek();
    const bool value_follows =
        next.kind == TokenKind::string || next.kind == TokenKind::integer ||
        next.kind == TokenKind::real || next.is_op("[") || next.is_op("{") ||
        (next.kind == TokenKind::name && !next.is_name("else") && !next.is_name("or") &&
         !next.is_name("and") && !next.is_name("is") && !next.is_name("if") &&
         !next.is_name("not") && !next.is_name("in"));
    if (take_op("(")) {
      arguments(*node);
    } else if (value_follows) {
      node->children.push_back(postfix(primary()));
    }
    return finish(std::move(node));
  }
};

}  // namespace lorapp::detail::jinja
