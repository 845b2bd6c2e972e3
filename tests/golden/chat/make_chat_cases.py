#!/usr/bin/env python3
"""Makes ../data/chat.json: templates with their contexts and the text that Jinja2 3.1.6 (set up as transformers
does) and Go's text/template give. Needs jinja2==3.1.6 from PyPI, and go for the Go half.

Hand-written templates show the constructs of real chat templates; random ones (fixed seed) the corners."""
import copy, datetime, json, os, random, signal, subprocess, sys, tempfile

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 3, 14, 9, 26, 53)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = NOW.strftime


def render(source, context):
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        return {"expected": ENV.from_string(source).render(**copy.deepcopy(context))}
    except TimeoutError:
        return None
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e) if type(e) is jinja2.exceptions.TemplateError else True}
    except Exception:
        return {"error": True}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def on_alarm(*_):
    raise TimeoutError


# --- hand-written templates: the constructs of chat templates, own wording and marks ---
TOOLS = [
    {"type": "function", "function": {"name": "tide", "description": "Height of the tide", "parameters": {
        "type": "object", "properties": {"harbour": {"type": "string", "description": "Where"},
                                         "hours": {"type": ["integer", "null"], "enum": [1, 6, 12]}}, "required": ["harbour"]}}},
    {"type": "function", "function": {"name": "noop", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "c00000001", "type": "function", "function": {
    "name": "tide", "arguments": {"harbour": "Büsum \"Nord\"", "hours": 6, "exact": True, "note": None}}}]}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "Moin!"}],
    "system": [{"role": "system", "content": "  Be brief. \n"}, {"role": "user", "content": "Name a <b>sea</b> & a bay\n"}],
    "turns": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "<mull>hm\n</mull>\n\nzwei"},
              {"role": "user", "content": "und 3 ⚓"}],
    "tools": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Tide?"}, CALL,
              {"role": "tool", "name": "tide", "tool_call_id": "c00000001", "content": "{\"m\": 3.5}"},
              {"role": "tool", "name": "tide", "content": "late"}, {"role": "assistant", "content": "3.5 m"}],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}
CHAT = {
    "marks": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '[sys]You are a tide table[/]\\n' }}{% endif %}{{'[' + message['role'] + ']' + message['content'] + '[/]' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}
""",
    "alternate": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set head = messages[0]['content'] | trim + '\\n\\n' -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set head = '' -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('turns must alternate') }}
    {%- endif -%}
    {%- set role = 'mate' if m['role'] == 'assistant' else m['role'] -%}
    {{ '(' ~ role ~ ')' }}{{ (head if loop.first else '') + m['content'] | trim }}{{ '(end)' + eos_token if not loop.last }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '(mate)' }}{% endif %}""",
    "tool_text": """{%- macro kind(p) -%}
    {%- if p.type is string -%}{{ p.type }}
    {%- elif p.type is iterable and p.type is not mapping -%}{{ p.type | join('|') }}
    {%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(tool_turn=false, system='') -%}
{%- for m in messages if m.role == 'system' -%}
    {%- set ns.system = ns.system + m.content -%}
{%- endfor -%}
{{- '<begin>' + ns.system }}
{%- if tools %}
    {{- '\\n# Tools\\n' }}
    {%- for tool in tools %}
        {%- set f = tool.function %}
        {{- 'fn ' + f.name + '(' }}
        {%- for name, p in f.parameters.properties.items() %}
            {{- name }}{{ '?' if name not in (f.parameters.required or []) }}: {{ kind(p) }}
            {%- if p.enum is defined %} = {{ p.enum | tojson }}{% endif %}
            {{- ', ' if not loop.last }}
        {%- endfor %}
        {{- ')' }}{% if f.description %} // {{ f.description }}{% endif %}
        {{- '\\n' + tool | tojson(indent=2) + '\\n' }}
    {%- endfor %}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'tool' %}
        {%- if not ns.tool_turn %}{{ '<results>' }}{% set ns.tool_turn = true %}{% endif %}
        {{- '\\n' + m.name + ': ' + m.content }}
        {%- if loop.last or (loop.nextitem and loop.nextitem.role != 'tool') %}{{ '</results>' }}{% endif %}
    {%- elif m.role != 'system' %}
        {%- set ns.tool_turn = false %}
        {{- '\\n<' + m.role + '>' }}
        {%- if m.content is string and '</mull>' in m.content %}
            {{- m.content.split('</mull>')[-1].lstrip('\\n') }}
        {%- else %}
            {{- m.content or '' }}
        {%- endif %}
        {%- for call in m.tool_calls or [] %}
            {{- '<call>' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson + '</call>' }}
            {%- for k, v in call.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '\\n<assistant>' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<mull>\\n\\n</mull>' }}{% endif %}
{%- endif %}""",
    "last_query": """{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not(message.content.startswith('{') and message.content.endswith('}')) %}
        {%- set ns.last = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
  {%- if message.role == 'system' %}{% continue %}{% endif %}
  {% generation %}{{ loop.index0 }}:{{ message.role }}{{ '*' if loop.index0 == ns.last else '' }}{% endgeneration %}

{%- endfor %}
Today is {{ strftime_now('%d %B %Y') }}{% set x %}  block {{ messages|length }} {% endset %}[{{ x|trim }}]
{# a comment #}
{% raw %}{{ not this }}{% endraw %}
{{ tools|map(attribute='function.name')|join(', ') if tools is defined and tools is not none else 'no tools' }}""",
}


def hand_cases():
    for t, source in CHAT.items():
        for c, messages in CONVERSATIONS.items():
            context = {"messages": messages, "add_generation_prompt": messages[-1]["role"] != "assistant", "bos_token": "<s>", "eos_token": "</s>"}
            if c == "tools":
                context["tools"] = TOOLS
            if c == "turns":
                context["enable_thinking"] = False
            yield {"name": t + "/" + c, "template": source, "context": context, **render(source, context)}


# --- random expressions and templates ---
VALUES = {"s": "Hello, World", "t": "  pad ded\n", "u": "straße ÉÀ ǆ ﬁ Σας", "e": "", "n": 5, "z": 0, "neg": -7, "f": 2.5, "big": 123456789012,
          "b": True, "no": None, "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "le": [], "de": {},
          "d": {"x": 1, "y": "two", "items": "shadow", "k": {"deep": [1, {"q": "r"}]}},
          "msgs": [{"role": "user", "content": "hi <b>"}, {"role": "assistant", "content": None, "tool_calls": [
              {"function": {"name": "f", "arguments": {"a": 1, "b": "é\"\n"}}}]}, {"role": "tool", "content": "42", "n": 3}],
          "nested": [[1, 2], [3, [4, 5]], "x"], "fl": [0.1, 1e20, 1e-7, 3.0, -0.0], "mixed": [1, "a", None, 2.0, True], "q": "it's \"q\"\t\\"}
NAMES = list(VALUES) + ["undef"]
LITERALS = ["1", "0", "-3", "2.5", "1e3", "'a'", '"b c"', "''", "'\\n'", "'x,y,z'", "'aXbXc'", "true", "none", "[]", "[1,2,3]", "['p','q']",
            "(1,2)", "(1,)", "()", "{}", "{'a':1,'b':[2]}", "0x1f", "1_000", "' lead'"]
FILTERS = """trim upper lower title capitalize length first last list tojson string int float safe escape abs sort round min max join dictsort
wordcount join(',~') default('dd') default('x',true) replace('l','LL',1) replace('','-') indent(2) indent(1,first=true,blank=true) tojson(indent=2)
tojson(ensure_ascii=true) tojson(separators=(',',':')) tojson(sort_keys=true) map('upper')|list map(attribute='role')|list
map(attribute='zz',default='q')|list select('string')|list reject('none')|list selectattr('role','equalto','user')|list
selectattr('tool_calls','defined')|list rejectattr('content','none')|list round(1) round(2,'floor') round(0,'ceil') sort(reverse=true)
sort(attribute='role') dictsort(by='value') int(7) int(base=16) float(1.5) trim('ab') batch(2,'z')|list center(12) format(1,2) unique|list
sum(start=10) reverse|list items|list count first|upper""".split()
METHODS = """upper() lower() strip() lstrip() rstrip() strip('Hd') split() split(',') split('_',1) rsplit('X',1) rsplit(None,1) splitlines()
startswith('H') startswith(('x','H')) endswith('d') replace('l','L') find('o') find('zz') rfind('o') count('l') title() capitalize() swapcase()
join(ls) isdigit() isalpha() isupper() islower() isspace() istitle() isalnum() center(20,'*') ljust(15) rjust(15,'.') zfill(8) partition(',')
rpartition('o') removeprefix('He') removesuffix('ld') items() keys() values() get('x') get('nope') get('nope',9) index(2) append(1) role x k.deep
items content foo index('o') find('l',3) find('l',-5,-1) count('')""".split()
TESTS = """defined undefined none string mapping iterable sequence number integer float boolean true false even odd lower upper divisibleby(2)
equalto(1) eq(5) lt(3) in([1,2,5]) sameas(none)""".split()
SLICES = "0 -1 1: ::-1 :2 1:-1 ::2 -2: 5 10:1:-2 'x' 'role' 1.5 true -100:2 3::-1 :".split()
SPECIAL = ["range(1,6,2)|list", "range(5,0,-2)|join(',')", "dict(a=1,b=2)", "namespace(a=1).a", "msgs[1].tool_calls[0].function.arguments|tojson",
           "d['items']", "d.k.deep[1].q", "d.items()|list", "'%s and %r' % (s, t)", "'%5.2f|%-5d|%05d|%x' % (f, n, n, big)",
           "'{:>10}|{:<5}|{:^7}|{:.2f}|{:,}'.format(s, n, e, f, big)", "1 < n < 10", "n ** 2", "2 ** neg", "-n ** 2"]


class Random:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, of):
        return self.r.choice(of)

    def expr(self, depth=0):
        if depth > 2 or self.r.random() < 0.15:
            return self.pick([self.pick(NAMES), self.pick(LITERALS)])
        sub = lambda: self.expr(depth + 1)
        return self.pick([
            lambda: f"({sub()} {self.pick('+ - * / // %'.split())} {sub()})",
            lambda: f"{sub()} ~ {sub()}",
            lambda: f"({sub()} {self.pick(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} {sub()})",
            lambda: f"{self.pick(NAMES)}|{self.pick(FILTERS)}",
            lambda: f"({sub()})|{self.pick(FILTERS)}",
            lambda: f"{self.pick(NAMES)}.{self.pick(METHODS)}",
            lambda: f"({sub()} is {self.pick(['', 'not '])}{self.pick(TESTS)})",
            lambda: f"({sub()} if {sub()} else {sub()})",
            lambda: f"({sub()} {self.pick(['and', 'or'])} {sub()})",
            lambda: self.pick(NAMES) + "[" + self.pick(SLICES) + "]",
            lambda: f"[{sub()}, {sub()}]",
            lambda: f"not {sub()}",
            lambda: self.pick(SPECIAL)])()

    def blank(self):
        return self.pick(["", " ", "\n", "  \n", "\n  ", "x\n", "text ", " t\n\n"])

    def tag(self, s):
        return "{%" + self.pick(["", "", "-", "+"]) + " " + s + " " + self.pick(["", "", "-", "+"]) + "%}"

    def statement(self, depth):
        body = lambda: self.text(depth + 1)
        if depth > 1 or self.r.random() < 0.3:
            return "{{" + self.pick(["", "-"]) + " " + self.expr(1) + " " + self.pick(["", "-"]) + "}}"
        loop = self.pick(["{{ loop.index }}", "{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}", "{{ loop.first }}{{ loop.last }}",
                          "{{ loop.length }}", "{{ loop.previtem }}|{{ loop.nextitem }}", '{{ loop.cycle("a","b") }}', "{{ i }}",
                          "{% if loop.index == 2 %}{% break %}{% endif %}", "{% if loop.first %}{% continue %}{% endif %}"])
        return self.pick([
            lambda: self.tag("if " + self.expr(1)) + body() + self.tag("elif " + self.expr(2)) + body() + self.tag("else") + body() + self.tag("endif"),
            lambda: self.tag("for i in " + self.pick(["msgs", "l", "ls", "nested", "d", "range(4)", "u", "le"]) + self.pick(["", " if i != 1"])) +
            loop + body() + self.tag("else") + body() + self.tag("endfor"),
            lambda: self.tag("set v = " + self.expr(1)) + "{{ v }}",
            lambda: self.tag("set v") + body() + self.tag("endset") + "[{{ v }}]",
            lambda: self.tag('macro m(a, b=2, c="z")') + "{{ a }}{{ b }}{{ c }}" + self.pick(["", "{{ varargs }}", "{{ kwargs }}"]) + body() +
            self.tag("endmacro") + "{{ m(" + self.pick(["1", "", "1,2", "a=3", "1,c=4", "1,2,3,4", "1,d=5"]) + ") }}",
            lambda: self.tag("filter " + self.pick(["upper", "trim", "indent(2)"])) + body() + self.tag("endfilter"),
            lambda: self.tag("with a = " + self.expr(2) + ", c = n") + "{{ a }}{{ c }}" + body() + self.tag("endwith"),
            lambda: "{#" + self.pick(["", "-", "+"]) + " c {{ x }} " + self.pick(["", "-", "+"]) + "#}",
            lambda: "{%- raw %} {{ no }} {% x %}\n {% endraw " + self.pick(["%}", "-%}", "+%}"]),
            lambda: self.tag("set a, c = " + self.pick(["1, 2", "l", "(s, t)", "nested[0]", "'xy'"])) + "{{ a }}{{ c }}"])()

    def text(self, depth=0):
        return "".join(self.blank() + self.statement(depth) for _ in range(self.r.randrange(1, 4))) + self.blank()


def unstable(case):
    text = str(case.get("expected", ""))
    return any(w in text.lower() for w in ("generator", "object at 0x", " at 0x", "function", "method"))


def random_cases(n_ok, n_error):
    r, out = Random(1), []
    while n_ok or n_error:
        source = "{{ " + r.expr() + " }}" if r.r.random() < 0.6 else r.text()
        case = render(source, VALUES)
        if case is None or len(source) > 600 or unstable(case):
            continue
        if "error" in case and n_error:
            n_error -= 1
        elif "expected" in case and n_ok:
            n_ok -= 1
        else:
            continue
        out.append({"name": "random/%d" % len(out), "template": source, "values": True, **case})
    return out


# --- Go ---
GO_VALUES = {"S": "Hello <W> & 'q'", "T": " pad\n", "E": "", "U": "é\u2028x", "N": 5, "Z": 0, "F": 2.5, "Big": 123456789012, "B": True, "No": None,
             "L": [3, 1, 2], "LS": ["b", "A"], "LE": [], "D": {"x": 1, "y": "two", "K": {"deep": [1, {"q": "r"}]}}, "Response": "RR",
             "Messages": [{"Role": "user", "Content": "hi"}, {"Role": "assistant", "Content": "", "ToolCalls": [
                 {"Function": {"Name": "f", "Arguments": {"b": 1, "a": "é\"\n"}}}]}, {"Role": "tool", "Content": "42"}]}
GO = ["{{ .S }}{{ .Undef }}{{ .No }}", "{{ if .S }}a{{ else if .T }}b{{ else }}c{{ end }}", "{{- range $i, $m := .Messages }}\n[{{ $i }}{{ .Role }}]{{ $m.Content -}}\n{{- range .ToolCalls }}{{ json .Function.Arguments }}{{ end }}{{ else }}none{{ end }}",
      "{{ range $k, $v := .D }}{{ $k }}={{ $v }};{{ end }}", "{{ range .LE }}x{{ else }}empty{{ end }}", "{{ range 3 }}{{ . }}{{ end }}",
      "{{ range .L }}{{ if eq . 1.0 }}{{ continue }}{{ end }}{{ if eq . 2.0 }}{{ break }}{{ end }}{{ . }}{{ end }}",
      "{{ with .D.K }}{{ .deep }}{{ end }}{{ with .E }}x{{ else }}y{{ end }}{{ with $x := .N }}{{ $x }}{{ end }}",
      "{{ define \"t\" }}[{{ . }}|{{ $ }}]{{ end }}{{ template \"t\" .S }}{{ template \"t\" }}{{ block \"b\" .N }}<{{ . }}>{{ end }}",
      "{{ $last := \"\" }}{{ range .Messages }}{{ $last = .Role }}{{ end }}{{ $last }}", "{{ eq .S \"a\" \"b\" }}{{ ne .N 5.0 }}{{ lt .N 6.0 }}{{ ge .N 5.0 }}{{ le .S \"Z\" }}{{ gt .F 1e3 }}",
      "{{ eq .N 5 }}", "{{ lt .B true }}", "{{ and .S .E .N }}|{{ or .E .No .S }}|{{ not .E }}|{{ and true (eq 1 1) }}", "{{ len .L }}{{ len .S }}{{ len .D }}{{ index .L 1 }}{{ index .D \"y\" }}{{ index .D.K.deep 1 \"q\" }}",
      "{{ index .L 9 }}", "{{ slice .S 1 4 }}{{ slice .L 1 }}{{ slice .S 2 1 }}", "{{ eq (len (slice .Messages 1)) 2 }}", "{{ print 1 2 \"a\" 3 4.5 nil }}{{ println .S .N }}{{ print }}",
      "{{ printf \"%s|%d|%v|%q|%5.2f|%-6s|%06d|%x|%t|%c|%U|%%|%e|%g\" .S 42 .L .T .F .LS 42 .S true 65 65 .F .Big }}", "{{ printf \"%d %s\" .S }}{{ printf \"%z\" 1 2 }}{{ printf \"%*d|%.2s\" 5 42 .S }}{{ printf \"%T %T\" .L 1 }}",
      "{{ .S | html }}{{ .S | js }}{{ .S | urlquery }}{{ html .No }}{{ json .S | printf \"%s!\" }}", "{{ json . }}", "{{ . }}", "{{ .D.nope.x }}", "{{ .S.x }}", "{{ (.No).x }}|{{ (index .Messages 0).Role }}",
      "{{ `raw\\n` }}{{ \"q\\t\\x41\\u00e9\\101\" }}{{ 'x' }}{{ '\\n' }}{{ 0x1F }}{{ 0b11 }}{{ 1_000 }}{{ 1e3 }}{{ .5 }}{{ -2 }}{{ true }}", "a {{- /* c */ -}} b{{/* c */}} c {{- 3 -}} d", "{{- if and (ne .S \"\") (gt (len .L) 2) -}} yes {{- end -}} z",
      "{{ .U }}{{ json .U }}{{ printf \"%q\" .U }}{{ js .U }}", "{{ .Big }} {{ .F }} {{ .N }} {{ json .Big }}", "{{ if }}x{{ end }}", "{{ nofunc .S }}", "{{ $x }}", "{{ .S | \"x\" }}", "{{ break }}", "{{ end }}", "{{ if .S }}", "{{ .S", "{{ \"a }}", "{{ 1.2.3 }}", "{{ define \"a\" }}x{{ end }}{{ define \"a\" }}y{{ end }}", "{{ template \"nope\" }}", "{{ nil }}", "{{ len .N }}", "{{ range .S }}{{ end }}", "{{ .S 1 }}", "{{ call .S }}", "{{ range $i, $e := 3 }}{{ end }}", "{{ with .No }}a{{ else with .S }}{{ . }}{{ end }}", "{{ $a := 1 }}{{ if true }}{{ $a := 2 }}{{ $a }}{{ end }}{{ $a }}",
      "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if $last }}last {{ .Role }}{{ end }}{{ end }}", "{{ .Response }}after{{ .Response }}"]
GO_MAIN = """package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

func main() {
	var in struct {
		Values    map[string]any
		Templates []string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	funcs := template.FuncMap{"json": func(v any) string { b, _ := json.Marshal(v); return string(b) }}
	out := []any{}
	for _, source := range in.Templates {
		var text bytes.Buffer
		t, err := template.New("").Option("missingkey=zero").Funcs(funcs).Parse(source)
		if err == nil {
			err = t.Execute(&text, in.Values)
		}
		if err != nil {
			out = append(out, nil)
		} else {
			out = append(out, text.String())
		}
	}
	json.NewEncoder(os.Stdout).Encode(out)
}
"""


def go_cases():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "main.go"), "w") as f:
            f.write(GO_MAIN)
        # The evaluator prints .Response where nothing mentions it, as the reference does; here every case mentions it.
        sources = [s + "{{/* .Response */}}{{ if false }}{{ .Response }}{{ end }}" for s in GO]
        done = subprocess.run(["go", "run", os.path.join(folder, "main.go")], input=json.dumps({"Values": GO_VALUES, "Templates": sources}).encode(),
                              stdout=subprocess.PIPE, check=True)
        for i, (source, text) in enumerate(zip(sources, json.loads(done.stdout))):
            yield {"name": "go/%d" % i, "template": source, **({"error": True} if text is None else {"expected": text})}


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    assert jinja2.__version__ == "3.1.6", jinja2.__version__
    floats = lambda v: {k: floats(x) for k, x in v.items()} if isinstance(v, dict) else [floats(x) for x in v] if isinstance(v, list) else \
        float(v) if type(v) is int else v  # what JSON's numbers are in Go
    out = {"made_with": "Jinja2 3.1.6, Go text/template", "now_unix": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()),
           "values": VALUES, "jinja": list(hand_cases()) + random_cases(500, 150), "go_values": floats(GO_VALUES), "go": list(go_cases())}
    with open(os.path.join(HERE, "..", "data", "chat.json"), "w") as f:
        json.dump(out, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    sys.exit(main())
