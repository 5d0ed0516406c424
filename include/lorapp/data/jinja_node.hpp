// The tree of a chat template.
#pragma once

#include <lorapp/data/jinja_value.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

enum class NodeKind {
  // expressions
  constant,     ///< value
  variable,     ///< name
  list,         ///< children
  tuple,        ///< children
  dict,         ///< children: key, value, key, value, …
  attribute,    ///< children[0].name
  item,         ///< children[0][children[1]]
  slice,        ///< children[0][children[1]:children[2]:children[3]], each of the three may be null
  call,         ///< children[0](children…); names: those of the last arguments
  filter,       ///< children[0]|name(children…); names as in call
  test,         ///< children[0] is name(children…), negated if `flag`
  unary,        ///< name: "-", "+", "not"
  binary,       ///< name: "+", "~", "*", …
  compare,      ///< children[0] names[0] children[1] names[1] …
  both,         ///< and
  either,       ///< or
  conditional,  ///< children[1] if children[0] else children[2], which may be null
  // statements
  text,    ///< value
  print,   ///< children[0]
  branch,  ///< if children[i] bodies[i] …; a body more is the else
  loop,    ///< for names in children[0] (if children[1], may be null): bodies[0], else bodies[1]
  assign,  ///< set names = children[0]
  assign_item,  ///< set names[0].names[1] = children[0]
  capture,      ///< set names[0] (a filter chain in children[0], may be null): bodies[0]
  filtered,     ///< filter children[0]: bodies[0]
  scope,        ///< with names = children: bodies[0]
  macro,        ///< name, names of parameters, children: defaults of the last ones, bodies[0]
  generation,   ///< bodies[0]
  stop,         ///< break
  next,         ///< continue
};

struct Node {
  NodeKind kind = NodeKind::constant;
  int line = 0;
  int depth = 1;
  bool flag = false;
  std::string name{};
  Value value{};
  std::vector<std::string> names{};
  std::vector<std::unique_ptr<Node>> children{};
  std::vector<std::vector<std::unique_ptr<Node>>> bodies{};
};

using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

inline constexpr int kMaxNodeDepth = 150;  ///< expressions and blocks within each other

/// Sets the node's depth from what it holds.
inline NodePtr finish(NodePtr node) {
  int depth = 0;
  const auto look = [&depth](const Body& nodes) {
    for (const NodePtr& child : nodes)
      if (child) depth = std::max(depth, child->depth);
  };
  look(node->children);
  for (const Body& body : node->bodies) look(body);
  node->depth = depth + 1;
  if (node->depth > kMaxNodeDepth)
    fail("line ", node->line, ": nested deeper than ", kMaxNodeDepth);
  return node;
}

}  // namespace lorapp::detail::jinja
