//! Templates against what jinja2 prints for them: the expected texts were printed by Python's jinja2, set up as transformers does.

use super::*;
use serde_json::{Value as Json, json};

fn source(template: &str) -> TemplateSource {
    TemplateSource { template: template.to_owned(), ..TemplateSource::default() }
}

fn render(template: &str, variables: Json) -> Result<String, TemplateError> {
    let Json::Object(map) = variables else { panic!("variables are an object") };
    let options = RenderOptions { variables: map.into_iter().collect(), now: Some(1_721_981_045), ..RenderOptions::default() };
    Template::new(source(template))?.render(&[Message::new("user", " Hi ")], &options)
}

fn check(template: &str, variables: Json, expected: &str) {
    assert_eq!(render(template, variables).as_deref(), Ok(expected), "{template}");
}

#[test]
fn blocks_take_their_line_with_them() {
    check(
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n<{{ m['content'] | trim }}>\n  {% endif %}\n{% endfor %}\n",
        json!({}),
        "<Hi>\n",
    );
}

#[test]
fn values_print_as_in_python() {
    check("{{ true }} {{ none }} {{ x }} {{ missing }}|", json!({"x": 1.5}), "True None 1.5 |");
    check("{{ x }}", json!({"x": {"b": [1, true, null], "a": "it's \"q\"\n"}}), r#"{'b': [1, True, None], 'a': 'it\'s "q"\n'}"#);
    check("{{ x }} {{ y }} {{ z }}", json!({"x": 1e20, "y": 0.00001, "z": 3.0}), "1e+20 1e-05 3.0");
    check("{{ x | string }}{{ 'a' ~ 1 }}", json!({"x": false}), "Falsea1");
}

#[test]
fn json_is_written_as_pythons_json_does() {
    let value = json!({"z": "é<&'\"\n\u{1}", "a": [1, 2.0, null, true, {}, []], "m": {"k": {"deep": 1e-7}}});
    check(
        "{{ x | tojson }}",
        json!({"x": value}),
        r#"{"z": "é<&'\"\n\u0001", "a": [1, 2.0, null, true, {}, []], "m": {"k": {"deep": 1e-07}}}"#,
    );
    check(
        "{{ x | tojson(indent=2) }}",
        json!({"x": {"a": [1, {}], "b": {"c": "d"}}}),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": \"d\"\n  }\n}",
    );
    check("{{ x | tojson(separators=(',', ':'), sort_keys=true) }}", json!({"x": {"b": 1, "a": [1, 2]}}), r#"{"a":[1,2],"b":1}"#);
    check("{{ x | tojson(ensure_ascii=true) }}", json!({"x": "é😀\u{7f}"}), r#""\u00e9\ud83d\ude00\u007f""#);
}

#[test]
fn string_methods_are_pythons() {
    check("{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxaxx'.strip('x') }}", json!({"s": " a "}), "a|a | a|a");
    check(
        "{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ ' a  b c '.split(none, 1) }}",
        json!({}),
        "['a', 'b', '', 'c'] ['a', 'b', 'c'] ['a', 'b c ']",
    );
    check(
        "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a</t>b'.split('</t>')[-1] }} {{ 'a b'.split(maxsplit=1) }}",
        json!({}),
        "['a,b', 'c'] b ['a', 'b']",
    );
    check(
        "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcabc'.replace('b', 'X', 1) }}",
        json!({}),
        "True True aXcabc",
    );
    check(
        "{{ 'hello wORLD'.title() }} {{ 'hELLO w'.capitalize() }} {{ 'aB'.upper() }} {{ 'aB'.lower() }}",
        json!({}),
        "Hello World Hello w AB ab",
    );
    check(
        "{{ 'éab'.find('a') }} {{ 'aab'.count('a') }} {{ ','.join(['a', 'b']) }} {{ 'a\nb'.splitlines() }}",
        json!({}),
        "1 2 a,b ['a', 'b']",
    );
    check("{{ '12'.isdigit() }} {{ 'prefix'.removeprefix('pre') }}", json!({}), "True fix");
}

#[test]
fn dict_methods_win_over_keys_of_the_same_name() {
    let x = json!({"items": 1, "get": 2});
    check(
        "{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}{{ x.get('no', 'or') }}{{ x.get('no') }}",
        json!({"x": x}),
        "items=1;get=2;orNone",
    );
    check("{{ x.keys() | list }} {{ x.values() | list }}", json!({"x": {"b": 1, "a": 2}}), "['b', 'a'] [1, 2]");
}

#[test]
fn tests_loops_namespaces_and_macros_work_as_in_jinja() {
    check(
        "{{ 'a' is iterable }} {{ 1 is iterable }} {{ x is mapping }} {{ none is iterable }} {{ 's' is string }}",
        json!({"x": {}}),
        "True False True False True",
    );
    check(
        "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 5 %}{% break %}{% endif %}{% if i % 2 %}{% continue %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        json!({}),
        "6",
    );
    check("{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f(1, y=2) }}", json!({}), "[1d][12]");
    check("{{ messages[0].content[1:] }}{{ messages[::-1] | length }}{{ x[-1] }}", json!({"x": [1, 2]}), "Hi 12");
    check(
        "{{ tools is none }} {{ tools is defined }} {{ nothing is defined }} {{ strftime_now('%d %b %Y') }}",
        json!({}),
        "True True False 26 Jul 2024",
    );
}

#[test]
fn a_template_can_refuse_a_conversation() {
    let error = render("a\n{{ raise_exception('roles must alternate') }}", json!({})).unwrap_err();
    assert_eq!(error, TemplateError::Failed { line: 2, detail: "roles must alternate".to_owned() });
    assert_eq!(error.to_string(), "roles must alternate (line 2 of the chat template)");
    assert!(matches!(render("{{ a.b.c }}", json!({"a": {}})), Err(TemplateError::Failed { line: 1, .. })));
    assert!(matches!(render("x\n{% if %}", json!({})), Err(TemplateError::Syntax { line: 2, .. })));
    assert!(matches!(Template::from_bytes(b"{"), Err(TemplateError::Damaged { .. })));
}

#[test]
fn tools_choose_the_template_for_tools() {
    let both = TemplateSource {
        tool_use: Some("tools {{ tools | length }} {{ bos_token }}".into()),
        tokens: [("bos_token".into(), "<s>".into())].into(),
        ..source("plain")
    };
    let template = Template::from_bytes(&serde_json::to_vec(&both).unwrap()).unwrap();
    let with = RenderOptions { tools: Some(json!([{}])), ..RenderOptions::default() };
    assert_eq!(template.render::<Message>(&[], &with).as_deref(), Ok("tools 1 <s>"));
    assert_eq!(template.render::<Message>(&[], &RenderOptions::default()).as_deref(), Ok("plain"));
}

#[test]
fn the_published_templates_render_as_in_transformers() {
    let Some(folder) = std::env::var_os("LLAMAC_FIXTURES").map(|f| std::path::Path::new(&f).join("chat_templates")) else {
        eprintln!("skipped: the published chat templates are not in this repository; set LLAMAC_FIXTURES to test them");
        return;
    };
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let template = Template::new(source(&std::fs::read_to_string(folder.join(name)).unwrap())).unwrap();
        let options = RenderOptions {
            add_generation_prompt: false,
            tools: Some(case["tools"].clone()).filter(|t| !t.is_null()),
            variables: case["variables"].as_object().unwrap().clone().into_iter().collect(),
            now: Some(0),
        };
        let rendered = template.render(case["messages"].as_array().unwrap(), &options);
        assert_eq!(rendered.as_deref(), Ok(case["rendered"].as_str().unwrap()), "{name} {}", case["case"]);
    }
}
