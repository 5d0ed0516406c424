// The parser's place in the words of a chat template.
#pragma once

#include <lorapp/data/jinja_lexer.hpp>
#include <lorapp/data/jinja_node.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool take_op(std::string_view op) {
    if (!peek().is_op(op)) return false;
    take();
    return true;
  }
  bool take_name(std::string_view name) {
    if (!peek().is_name(name)) return false;
    take();
    return true;
  }
  [[noreturn]] void expected(std::string_view what) const {
    fail_at(peek().line, concat("found ", peek().shown(), ", expected ", what));
  }
  void expect_op(std::string_view op) {
    if (!take_op(op)) expected(concat("'", op, "'"));
  }
  std::string expect_name() {
    if (peek().kind != TokenKind::name) expected("a name");
    return take().text;
  }

  NodePtr make(NodeKind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = peek().line;
    return node;
  }

  // Counts how deep the parser stands in itself.
  class Nesting {
   public:
    explicit Nesting(TokenCursor& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNodeDepth)
        fail_at(parser_.peek().line, concat("nested deeper than ", kMaxNodeDepth));
    }
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenCursor& parser_;
  };

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace lorapp::detail::jinja
