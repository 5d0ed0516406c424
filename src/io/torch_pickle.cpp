// An unpickler that builds plain values and does nothing else.
#include "io/torch_file.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>

#include <array>
#include <bit>
#include <deque>
#include <optional>
#include <unordered_map>

namespace lorapp::detail {

namespace {

// An error message shows a tensor's sizes; no parameter has more dimensions.
constexpr std::size_t kMaxDimensions = 8;

constexpr std::array<std::pair<std::string_view, c10::ScalarType>, 10> kStorages = {{
    {"torch FloatStorage", c10::ScalarType::Float},
    {"torch DoubleStorage", c10::ScalarType::Double},
    {"torch HalfStorage", c10::ScalarType::Half},
    {"torch BFloat16Storage", c10::ScalarType::BFloat16},
    {"torch LongStorage", c10::ScalarType::Long},
    {"torch IntStorage", c10::ScalarType::Int},
    {"torch ShortStorage", c10::ScalarType::Short},
    {"torch CharStorage", c10::ScalarType::Char},
    {"torch ByteStorage", c10::ScalarType::Byte},
    {"torch BoolStorage", c10::ScalarType::Bool},
}};

// The part of Python's pickle protocols 2 to 4 that torch.save writes for plain values.
class Unpickler {
 public:
  Unpickler(std::string_view bytes, std::string_view op, std::string where)
      : bytes_(bytes), op_(op), where_(std::move(where)) {}

  // Returns the value; `values` owns it and all below it.
  const TorchValue* run(std::deque<TorchValue>& values) {
    values_ = &values;
    while (true) {
      at_ = next_;
      const unsigned op = byte();
      if (op == '.') {
        if (stack_.size() != 1) fail("ends with ", stack_.size(), " values; expected one");
        return stack_.back();
      }
      step(op);
    }
  }

 private:
  template <class... Pieces>
  [[noreturn]] void fail(const Pieces&... pieces) const {
    detail::fail(op_, concat(where_, " at byte ", at_, ": ", pieces...));
  }

  std::string_view take(std::size_t count) {
    if (count > bytes_.size() - next_) fail("it ends in the middle of a value");
    const std::string_view part = bytes_.substr(next_, count);
    next_ += count;
    return part;
  }
  unsigned byte() { return static_cast<unsigned char>(take(1)[0]); }
  std::uint64_t little_endian(std::size_t count) {
    std::uint64_t value = 0;
    const std::string_view part = take(count);
    for (std::size_t i = count; i-- > 0;) {
      value = value << 8 | static_cast<unsigned char>(part[i]);
    }
    return value;
  }
  std::string line() {
    const std::size_t end = bytes_.find('\n', next_);
    if (end == std::string_view::npos) fail("it ends in the middle of a name");
    std::string text(bytes_.substr(next_, end - next_));
    next_ = end + 1;
    return text;
  }

  template <class T>
  void push(T value) {
    values_->emplace_back().value = std::move(value);
    stack_.push_back(&values_->back());
  }
  TorchValue* pop() {
    // What is below a mark belongs to the collection that it began.
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("a value is missing");
    TorchValue* value = stack_.back();
    stack_.pop_back();
    return value;
  }
  TorchItems pop_to_mark() {
    if (marks_.empty()) fail("a mark is missing");
    TorchItems items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  template <class T>
  T& top(const char* kind) {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("a value is missing");
    T* value = std::get_if<T>(&stack_.back()->value);
    if (value == nullptr) fail("found ", stack_.back()->describe(), "; expected ", kind);
    return *value;
  }

  void push_tuple(std::size_t count) {
    TorchItems items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push(std::move(items));
  }
  void add_items(const TorchItems& items) {
    auto& list = top<TorchItems>("a list");
    list.insert(list.end(), items.begin(), items.end());
  }
  void add_entries(const TorchItems& items) {
    if (items.size() % 2 != 0) fail("a key has no value");
    auto& dict = top<TorchDict>("a dict");
    for (std::size_t i = 0; i < items.size(); i += 2) dict.emplace_back(items[i], items[i + 1]);
  }
  void remember(std::uint64_t index) {
    if (stack_.empty()) fail("a value is missing");
    memo_[index] = stack_.back();
  }
  void recall(std::uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("it refers to value ", index, ", which is not there");
    stack_.push_back(found->second);
  }

  // ('storage', torch FloatStorage, key, location, number of elements) becomes a tensor without
  // shape.
  void load_storage() {
    const TorchValue* id = pop();
    const auto* items = id->as<TorchItems>();
    const auto* kind =
        items != nullptr && items->size() == 5 ? (*items)[0]->as<std::string>() : nullptr;
    const auto* type = kind != nullptr ? (*items)[1]->as<TorchGlobal>() : nullptr;
    const auto* key = type != nullptr ? (*items)[2]->as<std::string>() : nullptr;
    const auto* count = key != nullptr ? (*items)[4]->as<std::int64_t>() : nullptr;
    if (count == nullptr || *kind != "storage" || *count < 0) {
      fail("found ", id->describe(), "; expected the description of a storage");
    }
    auto tensor = std::make_unique<TorchTensor>();
    for (const auto& [name, dtype] : kStorages) {
      if (name == type->name) tensor->dtype = dtype;
    }
    if (tensor->dtype == c10::ScalarType::Undefined) {
      fail("a storage has the type ", in_quotes(type->name), ", which is not read");
    }
    tensor->record = "data/" + *key;
    tensor->storage_size = *count;
    push(std::move(tensor));
  }

  std::optional<std::vector<std::int64_t>> integers(const TorchValue* value) const {
    const auto* items = value->as<TorchItems>();
    if (items == nullptr) return std::nullopt;
    std::vector<std::int64_t> numbers;
    for (const TorchValue* item : *items) {
      const auto* number = item->as<std::int64_t>();
      if (number == nullptr || *number < 0) return std::nullopt;
      numbers.push_back(*number);
    }
    return numbers;
  }

  // (storage, offset, sizes, strides, requires_grad, hooks)
  void rebuild_tensor(const TorchItems& args) {
    const TorchTensor* storage = args.size() >= 4 ? args[0]->tensor() : nullptr;
    const auto* offset = storage != nullptr ? args[1]->as<std::int64_t>() : nullptr;
    const auto sizes = offset != nullptr ? integers(args[2]) : std::nullopt;
    const auto strides = sizes ? integers(args[3]) : std::nullopt;
    if (!strides || *offset < 0 || sizes->size() != strides->size() ||
        sizes->size() > kMaxDimensions) {
      fail("the parts of a tensor are not a storage, an offset, sizes and strides");
    }
    auto tensor = std::make_unique<TorchTensor>(*storage);
    tensor->offset = *offset;
    tensor->sizes = *sizes;
    tensor->strides = *strides;
    push(std::move(tensor));
  }

  void call() {
    const TorchValue* arguments = pop();
    const TorchValue* callee = pop();
    const auto* args = arguments->as<TorchItems>();
    const auto* global = callee->as<TorchGlobal>();
    if (args == nullptr || global == nullptr) {
      fail("found ", callee->describe(), " called with ", arguments->describe());
    }
    if (global->name == "torch._utils _rebuild_tensor_v2") {
      rebuild_tensor(*args);
    } else if (global->name == "collections OrderedDict" && args->empty()) {
      push(TorchDict());
    } else {
      fail("it would call ", in_quotes(global->name),
           ", and nothing but tensors and plain values is read");
    }
  }

  void step(unsigned op) {
    switch (op) {
      case 0x80:  // PROTO
        if (const unsigned version = byte(); version < 2 || version > 4) {
          fail("it has the pickle protocol ", version, "; expected 2 to 4");
        }
        return;
      case '}':
        return push(TorchDict());
      case ']':
      case ')':
        return push(TorchItems());
      case '(':
        marks_.push_back(stack_.size());
        return;
      case 'q':
        return remember(byte());
      case 'r':
        return remember(little_endian(4));
      case 'h':
        return recall(byte());
      case 'j':
        return recall(little_endian(4));
      case 0x94:  // MEMOIZE
        return remember(memo_.size());
      case 0x95:  // FRAME
        take(8);
        return;
      case 'X':
        return push(std::string(take(little_endian(4))));
      case 0x8c:  // SHORT_BINUNICODE
        return push(std::string(take(byte())));
      case 'K':
        return push(static_cast<std::int64_t>(byte()));
      case 'M':
        return push(static_cast<std::int64_t>(little_endian(2)));
      case 'J':
        return push(static_cast<std::int64_t>(static_cast<std::int32_t>(little_endian(4))));
      case 0x8a: {  // LONG1
        const std::size_t count = byte();
        if (count > 8) fail("an integer has ", count, " bytes; expected 8 or less");
        std::uint64_t value = little_endian(count);
        if (count > 0 && count < 8 && (value >> (8 * count - 1)) != 0) {
          value |= ~std::uint64_t{0} << (8 * count);
        }
        return push(static_cast<std::int64_t>(value));
      }
      case 'G': {
        std::uint64_t value = 0;
        for (const char c : take(8)) value = value << 8 | static_cast<unsigned char>(c);
        return push(std::bit_cast<double>(value));
      }
      case 'N':
        return push(std::monostate());
      case 0x88:
        return push(true);
      case 0x89:
        return push(false);
      case 0x85:
      case 0x86:
      case 0x87:
        return push_tuple(op - 0x84);
      case 't':
        return push(pop_to_mark());
      case 'a': {
        const TorchValue* item = pop();
        return add_items({item});
      }
      case 'e':
        return add_items(pop_to_mark());
      case 's': {
        const TorchValue* value = pop();
        const TorchValue* key = pop();
        return add_entries({key, value});
      }
      case 'u':
        return add_entries(pop_to_mark());
      case 'c': {
        std::string module = line();
        return push(TorchGlobal{module + " " + line()});
      }
      case 'Q':
        return load_storage();
      case 'R':
        return call();
      case 'b':  // BUILD: attributes of a dict, which have no part in its values
        pop();
        top<TorchDict>("a dict");
        return;
      default:
        fail("it has the pickle code ", op, ", which plain values do not need");
    }
  }

  std::string_view bytes_;
  std::string_view op_;
  std::string where_;
  std::size_t next_ = 0;
  std::size_t at_ = 0;
  std::deque<TorchValue>* values_ = nullptr;
  std::vector<TorchValue*> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, TorchValue*> memo_;
};

const TorchValue* find_in(const TorchValue& dict, auto&& matches) {
  const auto* entries = dict.as<TorchDict>();
  if (entries == nullptr) return nullptr;
  // A key that is given twice has its last value, as in Python.
  for (auto entry = entries->rbegin(); entry != entries->rend(); ++entry) {
    if (matches(*entry->first)) return entry->second;
  }
  return nullptr;
}

}  // namespace

const TorchValue* unpickle(std::string_view bytes,
                           std::string_view op,
                           std::string where,
                           std::deque<TorchValue>& values) {
  return Unpickler(bytes, op, std::move(where)).run(values);
}

const TorchTensor* TorchValue::tensor() const {
  const auto* pointer = as<std::unique_ptr<TorchTensor>>();
  return pointer != nullptr ? pointer->get() : nullptr;
}

const TorchValue* TorchValue::find(std::string_view key) const {
  return find_in(*this, [key](const TorchValue& name) {
    const auto* text = name.as<std::string>();
    return text != nullptr && *text == key;
  });
}

const TorchValue* TorchValue::find(std::int64_t key) const {
  return find_in(*this, [key](const TorchValue& name) {
    const auto* number = name.as<std::int64_t>();
    return number != nullptr && *number == key;
  });
}

std::string TorchValue::describe() const {
  if (as<std::monostate>() != nullptr) return "None";
  if (const auto* flag = as<bool>()) return *flag ? "True" : "False";
  if (const auto* integer = as<std::int64_t>()) return std::to_string(*integer);
  if (const auto* number = as<double>()) return concat(*number);
  if (const auto* text = as<std::string>()) return "the text " + in_quotes(*text);
  if (const auto* items = as<TorchItems>()) return concat("a list of ", items->size());
  if (const auto* dict = as<TorchDict>()) return concat("a dict of ", dict->size());
  if (const auto* global = as<TorchGlobal>()) return "the name " + in_quotes(global->name);
  const TorchTensor& data = *tensor();
  return concat("a tensor ", torch::IntArrayRef(data.sizes), " of ", data.dtype);
}

}  // namespace lorapp::detail
