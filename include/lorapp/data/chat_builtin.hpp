// The chat templates that lorapp brings with it, in Jinja, from what the models' makers publish
// about their formats. Each marks what the assistant writes, the end of an answer included.
#pragma once

#include <array>
#include <string_view>

namespace lorapp::detail {

struct BuiltInChat {
  std::string_view name;
  std::string_view source;
};

// Mistral 7B Instruct v0.1: words around a turn, spaces between them, bos once, eos behind each
// answer. There is no system role: its text goes before the first question.
inline constexpr std::string_view kMistralV1Chat = R"jinja(
{%- set ns = namespace(system='', turn=0) -%}
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' and loop.first -%}
    {%- set ns.system = message.content ~ '\n\n' -%}
  {%- elif message.role == 'user' and ns.turn % 2 == 0 -%}
    {{- '[INST] ' ~ ns.system ~ message.content ~ ' [/INST]' -}}
    {%- set ns.system = '' -%}
    {%- set ns.turn = ns.turn + 1 -%}
  {%- elif message.role == 'assistant' and ns.turn % 2 == 1 -%}
    {%- generation -%}{{- ' ' ~ message.content ~ eos_token -}}{%- endgeneration -%}
    {{- ' ' if not loop.last -}}
    {%- set ns.turn = ns.turn + 1 -%}
  {%- else -%}
    {{- raise_exception('the roles are to alternate: user, assistant, user, …, with system first or not at all') -}}
  {%- endif -%}
{%- endfor -%}
)jinja";

// Mistral 7B Instruct v0.3: [INST] and [/INST] are tokens, the system's text goes before the last
// question.
inline constexpr std::string_view kMistralV3Chat = R"jinja(
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{%- set system = messages[0].content ~ '\n\n' if first else '' -%}
{%- set turns = messages[first:] -%}
{%- set last_question = turns | selectattr('role', 'equalto', 'user') | list | length -%}
{%- set ns = namespace(questions=0) -%}
{{- bos_token -}}
{%- for message in turns -%}
  {%- if message.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('the roles are to alternate: user, assistant, user, …, with system first or not at all') -}}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {%- set ns.questions = ns.questions + 1 -%}
    {{- '[INST] ' ~ (system if ns.questions == last_question else '') ~ message.content ~ '[/INST]' -}}
  {%- else -%}
    {%- generation -%}{{- ' ' ~ message.content ~ eos_token -}}{%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
)jinja";

// Llama 2 Chat: every pair of question and answer between bos and eos, the system's text inside the
// first question.
inline constexpr std::string_view kLlama2Chat = R"jinja(
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{%- for message in messages[first:] -%}
  {%- if message.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('the roles are to alternate: user, assistant, user, …, with system first or not at all') -}}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- bos_token ~ '[INST] ' -}}
    {%- if loop.first and first -%}{{- '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n' -}}{%- endif -%}
    {{- message.content | trim ~ ' [/INST]' -}}
  {%- else -%}
    {%- generation -%}{{- ' ' ~ message.content | trim ~ ' ' ~ eos_token -}}{%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
)jinja";

// Llama 3: a header with the role before each message, <|eot_id|> behind it.
inline constexpr std::string_view kLlama3Chat = R"jinja(
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' -}}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}{{- message.content | trim ~ '<|eot_id|>' -}}{%- endgeneration -%}
  {%- else -%}
    {{- message.content | trim ~ '<|eot_id|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
)jinja";

// ChatML, as OpenAI described it and Qwen and others use it.
inline constexpr std::string_view kChatMlChat = R"jinja(
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message.role ~ '\n' -}}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}{{- message.content ~ '<|im_end|>' -}}{%- endgeneration -%}
  {%- else -%}
    {{- message.content ~ '<|im_end|>' -}}
  {%- endif -%}
  {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
)jinja";

// Stanford Alpaca's sections, one for each message; the sentence, or the system's text, comes
// first.
inline constexpr std::string_view kAlpacaChat = R"jinja(
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{{- bos_token -}}
{{- messages[0].content if first else 'Below is an instruction that describes a task. Write a response that appropriately completes the request.' -}}
{%- for message in messages[first:] -%}
  {%- if message.role == 'user' -%}
    {{- '\n\n### Instruction:\n' ~ message.content -}}
  {%- elif message.role == 'assistant' -%}
    {{- '\n\n### Response:\n' -}}
    {%- generation -%}{{- message.content ~ eos_token -}}{%- endgeneration -%}
  {%- else -%}
    {{- raise_exception('a role is ' ~ message.role ~ ', expected user or assistant, or system first') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}
)jinja";

// Databricks' Dolly: Alpaca's sections, and "### End" behind an answer.
inline constexpr std::string_view kDollyChat = R"jinja(
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{{- bos_token -}}
{{- messages[0].content if first else 'Below is an instruction that describes a task. Write a response that appropriately completes the request.' -}}
{%- for message in messages[first:] -%}
  {%- if message.role == 'user' -%}
    {{- '\n\n### Instruction:\n' ~ message.content -}}
  {%- elif message.role == 'assistant' -%}
    {{- '\n\n### Response:\n' -}}
    {%- generation -%}{{- message.content ~ '\n\n### End' -}}{%- endgeneration -%}
  {%- else -%}
    {{- raise_exception('a role is ' ~ message.role ~ ', expected user or assistant, or system first') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}
)jinja";

inline constexpr std::array<BuiltInChat, 7> kBuiltInChats = {{{"mistral-v1", kMistralV1Chat},
                                                              {"mistral-v3", kMistralV3Chat},
                                                              {"llama2", kLlama2Chat},
                                                              {"llama3", kLlama3Chat},
                                                              {"chatml", kChatMlChat},
                                                              {"alpaca", kAlpacaChat},
                                                              {"dolly", kDollyChat}}};

}  // namespace lorapp::detail
