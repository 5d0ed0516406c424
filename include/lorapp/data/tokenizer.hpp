// Tokenizer: text ↔ token ids, by the files of a Hugging Face folder: a sentencepiece model
// (tokenizer.model) or the BPE of a tokenizer.json.
// Convention: positions in text are byte offsets into the caller's UTF-8 string; ids are int64 as
// in the model's embedding.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

/// A value: copies share one immutable model. Every const member may be called from several threads
/// at once.
class LORAPP_API Tokenizer {
 public:
  /// Reads `tokenizer.model` (the authority for ids), else `tokenizer.json`, and, where present,
  /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` of a folder.
  ///
  /// Special tokens: the config's value, else the special tokens map's, else the model's own. bos
  /// and eos are put around a text as the config's add_bos_token and add_eos_token say, else as the
  /// post-processor of tokenizer.json does; with a tokenizer.model and neither, bos is added and
  /// eos is not, as Hugging Face's LlamaTokenizer does. Throws Error listing all problems: neither
  /// of the two files, a broken model or JSON file, parts of a tokenizer.json that lorapp does not
  /// support (docs/data.md), a special token that has no id, an added token whose id contradicts
  /// the model.
  static Tokenizer from_pretrained(const std::filesystem::path& directory);

  /// The ids of `text`; with `add_special_tokens`, bos before and eos behind if the configuration
  /// says so.
  ///
  /// Text that looks like a special token ("</s>") is plain text. A byte that is not UTF-8 is
  /// encoded as U+FFFD, which is sentencepiece's rule; for a tokenizer.json it is the same.
  std::vector<int64_t> encode(std::string_view text, bool add_special_tokens = true) const;

  /// As encode(), but special tokens written in the text ("</s>") become their ids.
  ///
  /// With a tokenizer.model, what follows such a token gets no space put before it, unless the
  /// configuration says `legacy: true`; a tokenizer.json says so itself.
  std::vector<int64_t> encode_with_special(std::string_view text,
                                           bool add_special_tokens = true) const;

  struct Encoding {
    std::vector<int64_t> ids;
    /// spans[i] = [begin, end): the bytes of the text that ids[i] stands for.
    ///
    /// Begins and ends never decrease. A token that stands for no byte of the text (bos, eos, the
    /// lone space that is put before a text) has an empty span. Where a character is
    /// spelled in byte tokens, each has its own byte; if normalisation changed the character first,
    /// each has the whole character.
    std::vector<std::pair<std::size_t, std::size_t>> spans;
  };

  /// The ids of encode() with the place of each token in the text.
  Encoding encode_with_spans(std::string_view text, bool add_special_tokens = true) const;

  /// Says whether a special token written at bytes [begin, end) of a text is one.
  using SpecialPlaces = std::function<bool(std::size_t begin, std::size_t end)>;

  /// As encode_with_special() without bos and eos, with spans; a special token where `is_special`
  /// says no is plain text, as in encode(). For texts that only in part are the caller's own, as a
  /// chat's.
  Encoding encode_markup(std::string_view text, const SpecialPlaces& is_special) const;

  /// The text of `ids`, as Hugging Face decodes: with `skip_special_tokens`, special tokens vanish
  /// first, then a tokenizer.json's decoder makes the text. `clean_up_tokenization_spaces` is
  /// ignored. Throws Error for an id that the vocabulary lacks.
  ///
  /// With a tokenizer.model it is what LlamaTokenizer (5.23) does: one leading space is dropped
  /// (the one that encoding put there); a run of byte tokens that is not UTF-8 becomes one U+FFFD
  /// per byte.
  std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens = true) const;

  /// Turns ids into text one at a time: what all push() calls and finish() return, joined, is
  /// decode() of all ids.
  class LORAPP_API StreamDecoder {
   public:
    explicit StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens = true);
    ~StreamDecoder();
    StreamDecoder(StreamDecoder&&) noexcept;
    StreamDecoder& operator=(StreamDecoder&&) noexcept;

    /// The text that this id made certain: always whole UTF-8 characters, often empty within a run
    /// of byte tokens.
    std::string push(int64_t id);

    /// The rest, when no id follows; the decoder is then as new.
    std::string finish();

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

  std::optional<int64_t> bos_id() const;
  std::optional<int64_t> eos_id() const;
  std::optional<int64_t> unk_id() const;
  /// The pad token, else eos: lorapp masks by length, so the id is never looked for in a sequence.
  std::optional<int64_t> pad_id() const;

  /// True if encode() puts bos before (eos behind) a text: `add_bos_token`, `add_eos_token`.
  bool add_bos() const;
  bool add_eos() const;

  /// Number of ids: the model's pieces and the tokens added behind them. An embedding needs at
  /// least as many rows.
  int64_t vocab_size() const;

  /// The written form of an id, e.g. "▁the", "<0x0A>", "</s>". Throws Error for an id outside the
  /// vocabulary.
  std::string id_to_token(int64_t id) const;

  /// The id of a written form, none if the vocabulary lacks it.
  std::optional<int64_t> token_to_id(std::string_view token) const;

  /// True for bos, eos, unk, pad and whatever the configuration declares special.
  bool is_special(int64_t id) const;

  /// Writes the tokenizer's files, byte for byte as they were read, into an existing or new folder.
  void save_pretrained(const std::filesystem::path& directory) const;

  struct Impl;  ///< not for users: defined in src/data

 private:
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace lorapp
