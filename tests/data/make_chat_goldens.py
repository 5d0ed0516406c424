"""Makes chat_goldens.json: what transformers' apply_chat_template makes of chat templates and conversations.

Needs transformers 5.23 (with tokenizers 0.23 and jinja2 3.1); run once, the result is committed:
    HF_HUB_OFFLINE=1 python3 tests/data/make_chat_goldens.py
The templates are written in the styles of known models; those of include/lorapp/data/chat_builtin.hpp are read from there.
"""
import json, os, re

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))


def built_in():
    """{name: source} of the header."""
    with open(os.path.join(root, "include/lorapp/data/chat_builtin.hpp"), encoding="utf-8") as file:
        header = file.read()
    sources = dict(re.findall(r'(k\w+Chat) = R"jinja\((.*?)\)jinja"', header, re.S))
    return {name: sources[constant] for name, constant in re.findall(r'\{"([\w-]+)", (k\w+Chat)\}', header)}


# name: (tokenizers, source)
STYLES = {
    "mistral": (["json_mistral"], """{{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('Roles have to take turns, beginning with user') }}
{%- endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant have a place here') }}{% endif %}{% endfor %}"""),
    "mistral-with-system": (["json_mistral"], """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant take turns after an optional system message") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] " ~ tools|tojson ~ "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("a role that is not known: " + message["role"]) }}
    {%- endif %}
{%- endfor %}
"""),
    "llama2": (["json_mistral", "json_llama2"], """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('The roles must take turns!') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""),
    "llama3": (["json_llama3"], """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = "26 Jul 2024" if strftime_now("%Y")|int > 9000 else "a day" %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes out of the list, so that it goes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Knowledge ends: December 2023\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("no tools here") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""),
    "chatml": (["json_qwen2"], """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""),
    "thinking": (["json_qwen2"], """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""),
    "zephyr": (["json_mistral"], """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""),
    "gemma": (["json_llama2"], """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must take turns') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""),
    "phi": (["json_qwen2"], """{% for message in messages %}{% if message['role'] in ['system', 'user', 'assistant'] %}{{ '<|' ~ message['role'] ~ '|>' ~ '\\n' -}}{% if message.role == 'assistant' %}{% generation %}{{ message['content'] ~ '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] ~ '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"""),
    "macros": (["json_llama3"], """{%- macro turn(role, text, end='<|eot_id|>') -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{{ text|trim }}{{ end }}
{%- endmacro -%}
{{ bos_token }}
{%- for m in messages if m.content|length > 0 -%}
{%- if m.role == 'assistant' %}{% generation %}{{ turn(m.role, m.content, end='') ~ '<|eot_id|>' }}{% endgeneration %}
{%- else %}{{ turn(role=m['role']|lower, text=m.get('content', '')) }}{% endif -%}
{%- else -%}
nothing
{%- endfor -%}"""),
}
for name, source in built_in().items():
    STYLES["built-in " + name] = ({"llama3": ["json_llama3"], "chatml": ["json_qwen2"]}.get(name, ["json_mistral"]), source)

U, A, S = "user", "assistant", "system"
CHATS = [
    [(U, "The river.")],
    [(S, "Be short."), (U, "How many rivers are there?")],
    [(U, "The old house"), (A, "stands near the river."), (U, "And the garden?"), (A, "There are 12 of them.")],
    [(S, "  Be \n short. \n"), (U, " The window  "), (A, "\n is open \n\n"), (U, "\tWhy?\t")],
    [(U, "naïve café 日本語 😀"), (A, "👩‍👩‍👧 текст по-русски e\u0301"), (U, "한국어 ½"), (A, "“quotes” … \u00a0x\u2003")],
    [(U, ""), (A, "a")],
    [(U, "a"), (A, ""), (U, "b"), (A, "b")],
    [(U, "one\n\nthree\r\n"), (A, "<think>\nhow? two\n</think>\n\nThe number is 2.")],
    [(U, "{{ x }} {% if %} {# #}"), (A, "'quoted' \"text\" \\n")],
    [(A, "first"), (U, "second")],
    [(U, "a"), (U, "b")],
    [(U, "a"), (S, "late"), (A, "b")],
    [(U, "a"), ("tool", "b")],
    [(S, "alone")],
    [(U, "x" * 40), (A, " ".join("engine number forest".split() * 12))],
]

SNIPPETS = r'''
{{ messages }}|{{ messages[0] }}
{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 'a' * 3 }} {{ 1 ~ 2 }} {{ -2 ** 2 }}
{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e20 }} {{ 1e-7 }} {{ 123456.789 }} {{ 3.0 * 2 }} {{ 1e16 }} {{ 1e15 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 5 / 5 }}
{{ true }} {{ none }} {{ [1, 'a', none, 2.5, true] }} {{ (1, 'b') }} {{ (1,) }} {{ {'a': 1, 'b': [2]} }} {{ "it's" }} {{ ["it's", 'say "x"', 'a\nb\\'] }}
{{ 'a' if false }}|{{ 'a' if true else 'b' }}|{{ 'a' if 0 else 'b' if '' else 'c' }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 2 in [1, 2] }} {{ 'role' in messages[0] }} {{ not 1 == 2 }} {{ 1 == 1.0 }} {{ true == 1 }}
{{ missing }}|{{ missing is defined }}|{{ missing|default('d') }}|{{ ''|default('d') }}|{{ ''|default('d', true) }}|{{ none|d('x') }}|{{ messages[0].nothing is defined }}|{{ messages[9] is undefined }}
{{ missing.attribute }}
{{ missing + 'a' }}
{{ 'a' + 1 }}
{{ missing() }}
{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'aé日b'[1:3] }}{{ 'abcdef'[::2] }}{{ 'abc'[::-1] }}{{ 'abc'[5:] }}|{{ 'abc'[-2:] }}{{ 'abc'[:-1] }} {{ [1,2,3,4][1:3] }} {{ [1,2,3][::-1] }} {{ 'abc'[7] }}
{{ ' a b '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ ' a '.strip() }}|{{ 'xxay'.lstrip('x') }}|{{ 'ayx'.rstrip('xy') }}|{{ 'prefix-a'.removeprefix('prefix-') }}|{{ '\u00a0a\u3000'.strip() }}|
{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a b  c d'.split(none, 2) }} {{ 'a\nb\r\nc'.splitlines() }}
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abcabc'.find('c') }} {{ 'abc'.find('x') }} {{ 'aXbX'.count('X') }} {{ 'aXbX'.replace('X', 'yy') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }}
{{ 'hello wORLD'|upper }} {{ 'HeLLo'|lower }} {{ 'hello wORLD-x (a'|title }} {{ 'hello wORLD'|capitalize }} {{ "they're x2y".title() }} {{ 'straße ÉCOLE ñ ЖУК ﬁ ŉ'.upper() }} {{ 'straße ÉCOLE Ñ ЖУК İ'.lower() }} {{ 'élan ǆ'|capitalize }}
{{ 'A1'.isupper() }} {{ 'a1'.islower() }} {{ '1'.isupper() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ ' \n'.isspace() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalpha() }}
{{ [1, 2, 3]|join(', ') }} {{ ['a', 'b']|join }} {{ messages|map(attribute='role')|join('-') }} {{ messages|join('|', attribute='content') }} {{ ', '.join(['x', 'y']) }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role', '==', 'user')|map(attribute='content')|list }} {{ messages|selectattr('content')|list|length }}
{{ messages|selectattr('role', 'eq', 'user')|map(attribute='content')|first }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ [0, 1, '']|select|list }} {{ ['a', 'B']|map('upper')|list }} {{ [3, 1, 2]|sort }} {{ ['b', 'A']|sort }} {{ [1, 3]|sort(reverse=true) }}
{{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|items|list }} {{ {'b': 1}.items() | list }} {{ {'b': 1}.keys()|list }} {{ {'b': 1}.values()|list }} {{ {'b': 1}.get('b') }} {{ {'b': 1}.get('c') }} {{ {'b': 1}.get('c', 5) }} {{ {'b': 1}.b }} {{ {'b': 1}['b'] }}
{{ [1, 2]|tojson }} {{ {'a': 'é"\n', 'b': none, 'c': true, 'd': 1.5}|tojson }} {{ {'a': [1, {'b': 2}], 'c': []}|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ '<&>'|tojson }}
{{ [1, 2, 3]|length }} {{ 'aé日'|length }} {{ {}|length }} {{ missing|length }} {{ [1, 2]|first }} {{ [1, 2]|last }} {{ []|first }}| {{ 'abc'|list }} {{ 5|string ~ 1 }} {{ '12'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.7'|int }} {{ '2.5'|float }} {{ 3.9|int }} {{ -3|abs }} {{ 2.5|round }} {{ 3.14159|round(2) }} {{ 2.1|round(0, 'ceil') }}
{{ [1, 2, 3]|sum }} {{ [3, 1]|min }} {{ [3, 1]|max }} {{ [1, 2, 1]|unique|list }} {{ [1, 2]|reverse|list }} {{ 'abc'|reverse }} {{ 'a\nb\n\nc'|indent(2) }} {{ 'a\nb'|indent(2, true) }} {{ '<a & b>'|e }} {{ 'a-b'|replace('-', '+') }}
{{ 1 is number }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 'a' is sequence }} {{ 1 is iterable }} {{ none is none }} {{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ true is boolean }} {{ 1 is boolean }} {{ 1 is true }} {{ true is true }} {{ false is false }} {{ 1 is integer }} {{ 1.0 is float }} {{ 'a' is in ['a'] }} {{ 1 is eq 1 }} {{ 2 is gt 1 }} {{ 'A' is upper }} {{ range is callable }} {{ 1 is not string }}
{% for i in range(3) %}{{ i }}{% endfor %} {% for i in range(1, 7, 2) %}{{ i }},{% endfor %} {% for i in range(3, 0, -1) %}{{ i }}{% endfor %} {{ range(3)|list }}
{% for x in ['a', 'b', 'c'] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }} {% endfor %}
{% for x in [] %}x{% else %}none{% endfor %} {% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }} {% endfor %} {% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for c in 'abc' %}{{ c }}.{% endfor %} {% for k in {'x': 1} %}{{ k }}{% endfor %}
{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ loop.index }}:{{ x }} {% endfor %} {% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.depth }}{{ x }}{{ y }} {% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(n=0, s='') %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {% if true %}{% set y = 3 %}{% endif %}{{ y }}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set c = 1, 2 %}{{ c }} {% set block %}text {{ a }}{% endset %}{{ block }} {% set up | upper %}abc{% endset %}{{ up }} {% filter trim|upper %}  abc  {% endfilter %} {% with z = 4, w = 'q' %}{{ z }}{{ w }}{% endwith %}{{ z }}
{% macro m(a, b='d') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }} {% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}
{% raw %}{{ not }} {% this %}{% endraw %} {{ '{{' }} {# a comment {{ x }} #}after
{%- if true -%}   x   {%- endif -%}   y   {{- 'z' -}}   w
  {% if true %}  a  {% endif %}  b
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ {'a': 1, 'a': 2} }} {{ {1: 'x', true: 'y'} }}
{{ 'a\tb\x41\u00e9\'\"\q' }} {{ "a" 'b' }} {{ 1_000 }}
{{ messages[0]['role'] }} {{ messages[0].role }} {{ messages[-1].content }} {{ messages.0.role }} {{ messages | length - 1 }}
{{ 'x' is defined and missing is not defined }} {{ 1 and 0 or 'z' }} {{ none or 'n' }} {{ [] or 'e' }} {{ 0 and missing.x }}
{{ 'a' ~ 1 + 2 }}
{{ 'a' ~ missing ~ none ~ true ~ 1.5 }}
{% if messages|selectattr('role', 'equalto', 'nobody') %}an iterator is true{% endif %}
{{ [1, 2].append(3) }}
{{ 'abc'.nothing }}|{{ 'abc'['x'] }}|{{ [1].x }}|{{ none.x }}
{{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 < 'a' }}
{{ 1 / 0 }}
{{ raise_exception('stop') }}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{{ 'a' in none }}
{{ 'x'|nofilter }}
{{ 'x' is notest }}
{% if true %}
{{ 1 + }}
{{ 'abc }}
{% nothing %}
{% endif %}
{{ (1, 2 }}
{{ [1, 2][0 }}
{% set true = 1 %}
{% for x in [1] %}{{ x }}
{{ 'a' % 'b' }}
{{ {'a': 1}.a.b.c }}
{{ strftime_now('%Y')|length }} {{ add_generation_prompt }} {{ bos_token }} {{ tools }} {{ documents is none }} {{ tools is none }}
'''


def snippets():
    result = []
    for line in SNIPPETS.strip("\n").split("\n"):
        result.append(line)
    result += ["{% if true %}\n  a\n{% endif %}\n  b\n", "  {% set x = 1 %}\n  {{ x }}\n\n", "a\n  {#- c -#}  \n b", "x{% if true +%}\ny{% endif %}\n\nz\n\n",
               "  {%+ if true %}a{% endif %}", "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}", "a {# c #}\n b\n   {# d #}\n  c", "\r\na\r\n{% if true %}\r\nb\r\n{% endif %}\r\n",
               "{% raw -%}  \n {{ x }} \n {%- endraw %}\nq", "  {% raw %} {% a %} {% endraw %} b", "\t{{- 1 -}}\n\n{{ 2 }}\n"]
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "it's"}]
    rows = []
    for source in result:
        try:
            text = _compile_jinja_template(source).render(messages=messages, tools=None, documents=None, add_generation_prompt=True,
                                                          bos_token="<s>", eos_token="</s>")
        except (TemplateError, TypeError, ZeroDivisionError, ValueError, SyntaxError, AttributeError, KeyError):
            text = None
        rows.append({"source": source, "text": text})
    return rows


def load(name):
    folder = os.path.join(here, "tokenizers", name)
    special = {"json_llama2": {"bos_token": "<s>", "unk_token": "<unk>"}}.get(name)
    if special is None:
        with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as file:
            config = json.load(file)
        values = {key: config.get(key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        special = {key: value["content"] if isinstance(value, dict) else value for key, value in values.items() if value}
    return PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"), **special)


def main():
    tokenizers, templates, cases = {}, [], []
    for name, (names, source) in STYLES.items():
        for tokenizer_name in names:
            if tokenizer_name not in tokenizers:
                tokenizers[tokenizer_name] = load(tokenizer_name)
            tokenizer = tokenizers[tokenizer_name]
            built = name.startswith("built-in ")
            templates.append({"name": name, "tokenizer": tokenizer_name, "source": None if built else source})
            marks = "generation %}" in source or "generation -%}" in source
            for index, chat in enumerate(CHATS):
                for prompt in (False, True):
                    messages = [{"role": role, "content": content} for role, content in chat]
                    row = {"template": len(templates) - 1, "chat": index, "prompt": prompt}
                    try:
                        row["text"] = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=prompt)
                    except TemplateError:
                        cases.append({**row, "text": None})
                        continue
                    out = tokenizer.apply_chat_template(messages, chat_template=source, add_generation_prompt=prompt, return_dict=True,
                                                        return_assistant_tokens_mask=marks)
                    row["ids"] = list(out["input_ids"])
                    if marks:
                        row["mask"] = "".join(map(str, out["assistant_masks"]))
                    cases.append(row)
    parts = {"chats": CHATS, "templates": templates, "cases": cases, "snippets": snippets()}
    with open(os.path.join(here, "chat_goldens.json"), "w", encoding="utf-8") as file:
        text = [f'"{key}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]" for key, rows in parts.items()]
        file.write("{" + ",\n".join(text) + "}\n")


if __name__ == "__main__":
    main()
