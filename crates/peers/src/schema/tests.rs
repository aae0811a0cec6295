use super::*;
use proptest::prelude::*;
use serde_json::json;

fn export(params: &[Value]) -> ExportChecker {
    let params: Vec<Value> = params
        .iter()
        .enumerate()
        .map(|(n, schema)| json!({"name": format!("p{n}"), "description": "", "schema": schema}))
        .collect();
    let manifest = json!({"sdk": {"name": "s", "description": ""}, "modules": [{"path": "a.ts", "exports": [{
        "name": "f", "description": "", "params": params, "returns": {"description": "", "schema": {"type": "integer"}},
        "examples": [{"description": "", "code": ""}]}]}]});
    let parsed = crate::manifest::parse(manifest.to_string().as_bytes(), crate::manifest::Limits::default()).unwrap();
    ExportChecker::compile(&parsed.modules[0].exports[0]).unwrap()
}

fn messages(checker: &ExportChecker, args: &[Value]) -> Vec<String> {
    checker
        .check_args(args)
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|f| format!("{}: {}", f.rule, f.message))
        .collect()
}

#[test]
fn faults_name_the_parameter_and_the_rule_and_no_value() {
    let checker = export(&[
        json!({"type": "object", "required": ["to"], "properties": {"to": {"type": "array", "items": {"format": "email"}}}}),
        json!({"enum": ["a", "b"]}),
        json!({"type": "string", "maxLength": 3, "pattern": "^x"}),
    ]);
    let secret = "TOP-SECRET";
    let args = [json!({"to": [secret, "a@b.example"]}), json!(secret), json!(secret), json!(secret)];
    let told = messages(&checker, &args).join("\n");
    assert!(!told.contains(secret));
    insta::assert_snapshot!(told);
    insta::assert_snapshot!(messages(&checker, &[]).join("\n"));
}

#[test]
fn trailing_arguments_may_be_left_out_if_null_or_a_default_stands_for_them() {
    let checker = export(&[
        json!({"type": "string"}),
        json!({"type": "integer", "default": 3}),
        json!({"type": ["string", "null"]}),
        json!({}),
    ]);
    let optional: Vec<bool> = checker.params.iter().map(|param| param.optional).collect();
    assert_eq!(optional, [false, true, true, true]);
    assert!(checker.check_args(&[json!("q")]).is_ok());
    assert_eq!(messages(&checker, &[]), ["required: argument p0 is missing"]);
    assert!(checker.check_args(&[json!("q"), json!(null)]).is_err(), "null is not the default");
    assert!(checker.check_result(&json!(1)).is_ok());
    assert_eq!(checker.check_result(&json!("1")).unwrap_err()[0].rule, "type");
}

#[test]
fn numbers_are_compared_as_numbers() {
    let checker = Checker::compile(&json!({"type": "integer", "maximum": 1e300})).unwrap();
    assert!(checker.check(&json!(1.0)).is_ok());
    assert!(checker.check(&json!(1e299)).is_ok());
    assert!(checker.check(&json!(1e301)).is_err());
    assert!(Checker::compile(&json!({"multipleOf": 1e-300})).unwrap().check(&json!(1e300)).is_ok());
}

#[test]
fn schemas_that_are_refused() {
    let refused: Vec<String> = [
        json!({"type": "strin"}),
        json!({"$ref": "https://example.com/a.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$ref": "other.json"}),
        json!({"$ref": "#/$defs/none"}),
        json!({"properties": {"a": {"$id": "https://example.com/a"}}}),
        json!({"$dynamicRef": "#node"}),
        json!({"pattern": "(?=a)"}),
        json!({"pattern": "(a{1000}){1000}"}),
        json!({"required": "a"}),
        json!({"items": [{"type": "string"}]}),
    ]
    .iter()
    .map(|schema| format!("{schema}\n  → {}", Checker::compile(schema).unwrap_err()))
    .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn a_schema_that_contains_itself_is_refused() {
    let tree = json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"left": {"$ref": "#/$defs/tree"}}}}});
    for schema in [tree, json!({"$ref": "#"}), json!({"allOf": [{"$ref": "#"}]}), json!({"not": {"$ref": "#"}})] {
        let fault = Checker::compile(&schema).unwrap_err();
        assert!(fault.message.contains("contains itself"), "{fault}");
    }
}

#[test]
fn a_property_is_no_keyword_whatever_its_name() {
    for name in ["default", "const", "enum", "examples", "$defs", "definitions"] {
        let schema = json!({"properties": {name: {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
        assert!(Checker::compile(&schema).is_err(), "{name}");
    }
}

#[test]
fn definitions_that_double_are_refused() {
    let mut defs = serde_json::Map::new();
    for n in 0..20 {
        let next = format!("#/$defs/d{}", n + 1);
        defs.insert(format!("d{n}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
    }
    defs.insert("d20".to_owned(), json!({}));
    assert!(Checker::compile(&json!({"$ref": "#/$defs/d0", "$defs": defs})).is_err());
}

/// Each level checks the one below it again to learn what it evaluated: 18 levels took six seconds.
#[test]
fn unevaluated_within_unevaluated_is_refused() {
    let nested = |levels| {
        (0..levels).fold(
            json!({"properties": {"a": true}}),
            |inner, _| json!({"anyOf": [inner], "unevaluatedProperties": false}),
        )
    };
    assert!(Checker::compile(&nested(3)).unwrap().check(&json!({"a": 1})).is_ok());
    assert!(Checker::compile(&nested(18)).unwrap_err().message.contains("parts"));
}

#[test]
fn the_work_of_a_check_is_bounded() {
    let branches = |n: usize| json!({"anyOf": (0..n).map(|n| json!({"minLength": n})).collect::<Vec<_>>()});
    let checker = Checker::compile(&json!({"items": branches(1000)})).unwrap();
    assert!(checker.check(&json!(vec![0; 1000])).is_ok());
    let fault = &checker.check(&json!(vec![0; 100_000])).unwrap_err()[0];
    assert_eq!((fault.pointer.as_str(), fault.rule.as_str()), ("", "work"));
    assert!(fault.message.contains("40000000"), "{}", fault.message);

    let options = json!({"items": {"enum": (0..20_000).collect::<Vec<_>>()}});
    assert_eq!(Checker::compile(&options).unwrap().check(&json!(vec![-1; 20_000])).unwrap_err()[0].rule, "work");

    let checker = export(&vec![json!({"items": branches(500)}); 30]);
    let args = vec![json!(vec![0; 20_000]); 30];
    let faults = checker.check_args(&args).unwrap_err();
    assert_eq!((faults.len(), faults[0].rule.as_str()), (1, "work"), "all arguments together");
}

/// With no budget of their own these took 12 s and 7 s for a megabyte.
#[test]
fn what_patterns_and_formats_read_is_bounded() {
    let hostile = "[ab]*a[ab]{3000}[^ab]";
    let text = "ab".repeat(512 * 1024);
    let names: String = (0..80_000).map(|n| format!("(?<a{n}>x)")).collect();
    let reads = |schema: Value, value: Value| Checker::compile(&schema).unwrap().check(&value).unwrap_err()[0].clone();
    let property = json!({text.clone(): 1});
    for (schema, value) in [
        (json!({"pattern": hostile}), json!(text)),
        (json!({"not": {"not": {"pattern": hostile}}}), json!(text)),
        (json!({"items": {"pattern": hostile}}), json!(vec!["ab".repeat(500); 1000])),
        (json!({"prefixItems": [{"$ref": "#/$defs/p"}], "$defs": {"p": {"pattern": hostile}}}), json!([text])),
        (json!({"properties": {"a": {"contains": {"pattern": hostile}}}}), json!({"a": [text]})),
        (json!({"patternProperties": {hostile: {}}}), property.clone()),
        (json!({"patternProperties": {hostile: {}}, "additionalProperties": false}), property.clone()),
        (json!({"allOf": [{"propertyNames": {"pattern": hostile}}]}), property),
        (json!({"dependentSchemas": {"a": {"properties": {"a": {"pattern": hostile}}}}}), json!({"a": text})),
        (json!({"if": {"pattern": hostile}}), json!(text)),
        (json!({"allOf": vec![json!({"format": "email"}); 50]}), json!(text)),
        (json!({"format": "regex"}), json!(names)),
    ] {
        let shown = schema.to_string();
        let fault = reads(schema, value);
        assert_eq!((fault.pointer.as_str(), fault.rule.as_str()), ("", "work"), "{shown}");
        assert!(fault.message.contains("patterns' sizes") && fault.message.len() < 300, "{}", fault.message);
    }
    // An alternative is compared with each text, however short.
    let words: Vec<String> = (0..3000).map(|n| format!("{n:04}")).collect();
    let listed = json!({"items": {"pattern": format!("^({})$", words.join("|"))}});
    assert_eq!(reads(listed, json!(vec!["none"; 300_000])).rule, "work");

    let checker = export(&[json!({"pattern": hostile}), json!({"pattern": hostile})]);
    let half = [json!("ab".repeat(15_000))];
    assert!(work(checker.with_args(&half)) < work::MOST);
    assert!(checker.args_take_long(&half));
    let faults = checker.check_args(&[half.as_slice(), &half].concat()).unwrap_err();
    assert_eq!((faults.len(), faults[0].rule.as_str()), (1, "work"), "all arguments together");
}

#[test]
fn ordinary_patterns_read_ordinary_texts() {
    for (pattern, fits) in [
        (r"^[A-Za-z0-9_-]{1,256}$", "a_B-9"),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "someone.else@mail.example.com"),
        (r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", "0b0e4a3c-7d1f-4b52-9a77-1f2e3d4c5b6a"),
        (r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?$", "2025-02-03T04:05:06.789+01:00"),
        (r"^\p{Lu}\p{Ll}+$", "Élodie"),
        (r"^(?i:https?)://[^\s/$.?#].[^\s]*$", "HTTPS://example.com/a?b=c"),
        (r"^sk_[A-Za-z0-9]{24,255}$", "sk_abcdefghijklmnopqrstuvwxyz"),
        (r"^(get|put|post)$", "put"),
        (r"^\S+$", "word"),
        (r"^.{1,500}$", "any text"),
    ] {
        let list =
            Checker::compile(&json!({"type": "array", "items": {"type": "string", "pattern": pattern}})).unwrap();
        let texts = |text: &str| json!(vec![text; 128 * 1024 / text.len()]);
        assert_eq!(list.check(&texts(fits)), Ok(()), "{pattern}");
        assert_eq!(list.check(&json!([fits, " @ "])).is_err(), pattern != r"^.{1,500}$", "{pattern}");
        // A pattern costs nothing where it does not read: this is 4 MiB beside it.
        let beside = json!({"properties": {"id": {"pattern": pattern}, "content": {"type": "string"}}});
        let value = json!({"id": fits, "content": "é".repeat(2 * 1024 * 1024)});
        assert_eq!(Checker::compile(&beside).unwrap().check(&value), Ok(()), "{pattern}");
    }
}

#[test]
fn patterns_that_cost_too_much_to_compile_are_refused() {
    let long = Checker::compile(&json!({"properties": {"a/b": {"pattern": "a".repeat(20_000)}}})).unwrap_err();
    assert_eq!(long.pointer, "/properties/a~1b/pattern");
    assert!(long.message.contains("16384 bytes"), "{long}");

    // 5 ms for each class: they are nothing once compiled, but have to be folded.
    let folded = Checker::compile(&json!({"pattern": format!("(?i){}", r"\p{any}{0}".repeat(100))})).unwrap_err();
    assert!(folded.message.contains("131072 bytes"), "{folded}");
    let controls = Checker::compile(&json!({"pattern": r"\cA".repeat(5000)})).unwrap_err();
    assert!(controls.message.contains("131072 bytes"), "{controls}");

    let pattern = "x[ab]{2500}[^a]";
    let mut patterns = Patterns::default();
    let mut add = || Checker::compile_with(&json!({"patternProperties": {pattern: {}}}), &mut patterns);
    (0..128).for_each(|_| drop(add().unwrap()));
    let large = add().unwrap_err();
    assert_eq!(large.pointer, format!("/patternProperties/{pattern}"));
    assert!(large.message.contains("33554432 bytes once compiled"), "{large}");

    let fields =
        (0..500).map(|n| (format!("^field{n}_[a-z]{{1,20}}[0-9]$"), json!({}))).collect::<serde_json::Map<_, _>>();
    assert!(Checker::compile(&json!({"patternProperties": fields})).is_ok());
}

#[test]
fn ordinary_large_values_pass() {
    let field = json!({"type": ["string", "null"], "description": "words", "pattern": "^[a-z]*$"});
    let fields = |n: usize| (0..n).map(|n| (format!("field{n}"), field.clone())).collect::<serde_json::Map<_, _>>();
    let record = |n: usize| json!({"type": "object", "properties": fields(n), "additionalProperties": false});
    let values = |n: usize| (0..n).map(|n| (format!("field{n}"), json!("abcdefg"))).collect::<serde_json::Map<_, _>>();
    for (count, n) in [(10_000, 10), (3_000, 50)] {
        let checker = Checker::compile(&json!({"type": "array", "items": record(n)})).unwrap();
        assert!(checker.check(&json!(vec![values(n); count])).is_ok(), "{count} records of {n} fields");
    }
    let long = json!({"field0": "a".repeat(4 * 1024 * 1024)});
    assert!(Checker::compile(&record(30)).unwrap().check(&long).is_ok());
    let many = json!(vec![0; 2_000_000]);
    assert!(Checker::compile(&json!({"type": "array", "items": {"type": "integer"}})).unwrap().check(&many).is_ok());
}

#[test]
fn errors_are_not_collected_from_large_values() {
    let faults = |schema: Value, value: &Value| Checker::compile(&schema).unwrap().check(value).unwrap_err();
    let (few, many) = (json!([0, 0, 0]), json!(vec![0; 500_000]));
    let objects = json!({"items": {"type": "object"}});
    assert_eq!(faults(objects.clone(), &few).len(), 3);
    let first = faults(objects, &many);
    assert_eq!((first.len(), first[0].pointer.as_str(), first[0].rule.as_str()), (1, "/0", "type"));

    let branches = json!({"type": "array", "items": {"anyOf": vec![json!({"type": "object"}); 5]}});
    assert_eq!(faults(branches.clone(), &few).len(), 3);
    assert_eq!(faults(branches.clone(), &many)[0].rule, "schema");
    // Each of a thousand errors would have a pointer of 100 kB.
    let keyed = json!({"k".repeat(100_000): vec![0; 1000]});
    assert_eq!(faults(json!({"additionalProperties": branches}), &keyed)[0].rule, "schema");
}

#[test]
fn large_checks_are_known_beforehand() {
    let checker = export(&[json!({"type": "array", "items": {"type": "integer"}})]);
    assert!(!checker.args_take_long(&[json!(vec![0; 100])]));
    assert!(checker.args_take_long(&[json!(vec![0; 100_000])]));
    assert!(!checker.result_takes_long(&json!("x")));
    assert!(checker.result_takes_long(&json!("x".repeat(100_000))));
}

#[test]
fn names_of_properties_are_told_to_the_caller_alone() {
    let secret = "s3cret-value";
    let named = json!({(secret): 1});
    for schema in [
        json!({"properties": {"a": {}}, "additionalProperties": false}),
        json!({"properties": {"a": {}}, "unevaluatedProperties": false}),
        json!({"propertyNames": {"maxLength": 3}}),
        json!({"propertyNames": {"pattern": "^a"}}),
    ] {
        let faults = Checker::compile(&schema).unwrap().check(&named).unwrap_err();
        assert_eq!(faults[0].pointer, "");
        assert!(!format!("{faults:?}").contains(secret), "{faults:?}");
    }
    let told = messages(
        &export(&[json!({"properties": {"limit": {}}, "additionalProperties": false})]),
        &[json!({"limti": 1})],
    );
    assert!(told[0].contains("limti"), "{told:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_schema_gives_an_answer(keyword in "(type|items|properties|pattern|format|\\$ref|allOf|const|minimum|multipleOf|required)", value in any_json(), instance in any_json()) {
        if let Ok(checker) = Checker::compile(&json!({keyword: value})) {
            let _answer = checker.check(&instance);
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[#/$a-z(*)\\[]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z$]{0,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
