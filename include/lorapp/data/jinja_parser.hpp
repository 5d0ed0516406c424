// The statements of a chat template: from words to the tree.
#pragma once

#include <lorapp/data/jinja_expressions.hpp>

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

inline constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

class Parser : public ExpressionParser {
 public:
  /// The tree of a template. Fails with the line and what was found there.
  static Body parse(std::string_view source) {
    if (source.size() > kMaxTemplateBytes)
      fail("the template has ", source.size(), " bytes; expected at most ", kMaxTemplateBytes);
    Parser parser(Lexer::tokens(source));
    Body body = parser.body({});
    if (parser.peek().kind != TokenKind::end)
      fail_at(parser.peek().line, concat("{% ", parser.peek().text, " %} closes nothing"));
    return body;
  }

 private:
  using ExpressionParser::ExpressionParser;

  // Everything up to a statement that begins with one of `ends`, which is left to be taken.
  Body body(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(*this);
    const int line = peek().line;
    Body nodes;
    for (;;) {
      const Token& token = peek();
      if (token.kind == TokenKind::end) {
        if (ends.size() > 0)
          fail_at(line, concat("a block is not closed; expected {% ", *(ends.end() - 1), " %}"));
        return nodes;
      }
      if (token.kind == TokenKind::data) {
        NodePtr node = make(NodeKind::text);
        node->value = Value::text(take().text);
        nodes.push_back(std::move(node));
      } else if (token.kind == TokenKind::print_begin) {
        take();
        NodePtr node = make(NodeKind::print);
        node->children.push_back(tuple());
        if (peek().kind != TokenKind::print_end) expected("}}");
        take();
        nodes.push_back(finish(std::move(node)));
      } else {
        take();  // {%
        for (const std::string_view end : ends)
          if (peek().is_name(end)) return nodes;
        if (ends.size() == 0 && peek().text.starts_with("end")) return nodes;
        nodes.push_back(statement());
      }
    }
  }

  void end_block() {
    if (peek().kind != TokenKind::block_end) expected("%}");
    take();
  }

  // The body of a block that `end` closes, which is taken.
  Body body_until(std::string_view end) {
    end_block();
    Body nodes = body({end});
    take();
    return nodes;
  }

  NodePtr statement() {
    const Token word = peek();
    if (word.kind != TokenKind::name) expected("a statement");
    if (word.text == "if") return branch();
    if (word.text == "for") return loop();
    if (word.text == "set") return set();
    if (word.text == "macro") return macro();
    if (word.text == "with") return scope();
    if (word.text == "filter") return filtered();
    if (word.text == "generation") {
      NodePtr node = make(NodeKind::generation);
      take();
      node->bodies.push_back(body_until("endgeneration"));
      end_block();
      return finish(std::move(node));
    }
    if (word.text == "break" || word.text == "continue") {
      NodePtr node = make(word.text == "break" ? NodeKind::stop : NodeKind::next);
      take();
      if (loops_ == 0) fail_at(word.line, concat("{% ", word.text, " %} stands in no loop"));
      end_block();
      return node;
    }
    fail_at(word.line, concat("{% ", word.text.substr(0, 60),
                              " %} is not supported; supported: if, for, set, macro, with, filter, "
                              "generation, break, continue, raw"));
  }

  NodePtr branch() {
    NodePtr node = make(NodeKind::branch);
    for (;;) {
      take();  // if, elif
      node->children.push_back(tuple());
      end_block();
      node->bodies.push_back(body({"elif", "else", "endif"}));
      if (!peek().is_name("elif")) break;
    }
    if (take_name("else"))
      node->bodies.push_back(body_until("endif"));
    else
      take();
    end_block();
    return finish(std::move(node));
  }

  // One name, or several: a, b or (a, b).
  std::vector<std::string> targets() {
    const bool parentheses = take_op("(");
    std::vector<std::string> names = {target()};
    while (take_op(",")) {
      if (peek().kind != TokenKind::name || peek().is_name("in")) break;
      names.push_back(target());
    }
    if (parentheses) expect_op(")");
    return names;
  }
  std::string target() {
    const Token& token = peek();
    for (const std::string_view word : {"true", "True", "false", "False", "none", "None"})
      if (token.is_name(word)) fail_at(token.line, concat("cannot assign to ", word));
    return expect_name();
  }

  NodePtr loop() {
    NodePtr node = make(NodeKind::loop);
    take();
    node->names = targets();
    if (!take_name("in")) expected("in");
    node->children.push_back(tuple(/*conditional=*/false));
    node->children.push_back(take_name("if") ? expression() : nullptr);
    if (peek().is_name("recursive")) fail_at(peek().line, "a recursive loop is not supported");
    end_block();
    ++loops_;
    node->bodies.push_back(body({"else", "endfor"}));
    --loops_;
    if (take_name("else"))
      node->bodies.push_back(body_until("endfor"));
    else
      take();
    end_block();
    return finish(std::move(node));
  }

  NodePtr set() {
    NodePtr node = make(NodeKind::assign);
    take();
    if (peek(1).is_op(".")) {
      node->kind = NodeKind::assign_item;
      node->names.push_back(target());
      take();
      node->names.push_back(expect_name());
    } else {
      node->names = targets();
    }
    if (take_op("=")) {
      node->children.push_back(tuple());
    } else if (node->kind == NodeKind::assign && node->names.size() == 1) {
      node->kind = NodeKind::capture;
      node->children.push_back(take_op("|") ? filter_chain() : nullptr);
      node->bodies.push_back(body_until("endset"));
    } else {
      expected("'='");
    }
    end_block();
    return finish(std::move(node));
  }

  NodePtr filter_chain() {
    NodePtr chain = filter(nullptr);
    while (take_op("|")) chain = filter(std::move(chain));
    return chain;
  }

  NodePtr filtered() {
    NodePtr node = make(NodeKind::filtered);
    take();
    node->children.push_back(filter_chain());
    node->bodies.push_back(body_until("endfilter"));
    end_block();
    return finish(std::move(node));
  }

  NodePtr scope() {
    NodePtr node = make(NodeKind::scope);
    take();
    while (peek().kind != TokenKind::block_end) {
      node->names.push_back(target());
      expect_op("=");
      node->children.push_back(expression());
      if (!take_op(",")) break;
    }
    node->bodies.push_back(body_until("endwith"));
    end_block();
    return finish(std::move(node));
  }

  NodePtr macro() {
    NodePtr node = make(NodeKind::macro);
    take();
    node->name = expect_name();
    expect_op("(");
    while (!peek().is_op(")")) {
      node->names.push_back(target());
      if (take_op("=")) {
        node->children.push_back(expression());
      } else if (!node->children.empty()) {
        expected("a default, as the parameters before have one");
      }
      if (!take_op(",")) break;
    }
    expect_op(")");
    const int loops = std::exchange(loops_, 0);
    node->bodies.push_back(body_until("endmacro"));
    loops_ = loops;
    if (peek().kind == TokenKind::name) take();
    end_block();
    return finish(std::move(node));
  }

  int loops_ = 0;  // around this place
};

}  // namespace lorapp::detail::jinja
