//! Arguments and results against the schemas that a manifest declares for them.
//!
//! Owns how JSON Schema (2020-12) is applied: formats are checked, references to other documents are refused, patterns
//! run in linear time, and a schema that would multiply work is refused when it is compiled. Must not know who calls.
//!
//! **Arguments that may be left out.** JavaScript callers leave out trailing arguments; a manifest has no word for
//! that. So a trailing argument may be missing if its schema has a `default` or accepts `null`. The provider then gets
//! fewer arguments, and its own default applies. `undefined` before a given argument travels as `null`.

mod expansion;
mod work;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;

use crate::json::{self, MAX_DEPTH};
use crate::manifest::Export;

use expansion::Expanded;
use work::Size;

pub(crate) use expansion::resolve;

/// Memory in bytes for one compiled pattern.
const PATTERN_BYTES: usize = 256 * 1024;

/// Faults told for one value; a message stays readable, and the work bounded.
const SHOWN: usize = 5;

/// A schema that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{pointer}: {message}")]
pub struct SchemaFault {
    /// JSON pointer into the schema.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// What is wrong with one value. Of the value it holds keys alone: in the pointer and, of an argument, in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueFault {
    /// JSON pointer into the value; empty for the whole.
    pub pointer: String,
    /// The keyword of the schema that refuses it, such as `type` or `maxLength`.
    pub rule: String,
    /// What the rule asks for.
    pub message: String,
}

/// One schema, ready to check values. Cheap to share, expensive to make.
#[derive(Debug)]
pub struct Checker {
    validator: Validator,
    expanded: Expanded,
}

/// Whether a message may quote names of properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// They are the caller's own.
    Shown,
    /// Secrets are struck out of messages after these are cut, and half of a secret is not found.
    Hidden,
}

impl Checker {
    /// Compiles a schema.
    pub fn compile(schema: &Value) -> Result<Self, SchemaFault> {
        let expanded = expansion::check(schema)?;
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES))
            .build(schema)
            .map(|validator| Self { validator, expanded })
            .map_err(|error| SchemaFault {
                pointer: error.instance_path().to_string(),
                message: format!("is no valid JSON Schema: {}", shorten(&error.masked_with("this").to_string())),
            })
    }

    /// Checks a value. Messages quote nothing of it.
    pub fn check(&self, value: &Value) -> Result<(), Vec<ValueFault>> {
        self.check_naming(value, Names::Hidden)
    }

    fn check_naming(&self, value: &Value, names: Names) -> Result<(), Vec<ValueFault>> {
        let whole = |rule: &str, message| vec![ValueFault { pointer: String::new(), rule: rule.to_owned(), message }];
        if json::depth(value) > MAX_DEPTH {
            return Err(whole("depth", format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        let (size, parts) = (Size::of(value), self.expanded.parts);
        if size.work(parts) > work::MOST {
            return Err(whole("work", too_much(size.work(parts))));
        }
        if self.validator.is_valid(value) {
            return Ok(());
        }
        // The validator collects all errors before it gives the first one, and so it does for branches.
        if size.errors_fit(parts) {
            let errors = self.validator.iter_errors(value);
            return Err(errors.take(SHOWN).map(|error| value_fault(&error, names)).collect());
        }
        if !self.expanded.branches {
            return self.validator.validate(value).map_err(|error| vec![value_fault(&error, names)]);
        }
        Err(whole("schema", "does not fit its schema, and is too large to tell where".to_owned()))
    }

    fn work(&self, value: &Value) -> usize {
        Size::of(value).work(self.expanded.parts)
    }

    fn takes_long(&self, value: &Value) -> bool {
        Size::of(value).is_long(self.expanded.parts)
    }
}

fn too_much(work: usize) -> String {
    format!("is too large for its schema: values times the schema's parts are {work}, and may be {}", work::MOST)
}

fn value_fault(error: &ValidationError<'_>, names: Names) -> ValueFault {
    let rule = match error.kind() {
        ValidationErrorKind::FalseSchema => "false".to_owned(),
        _ => error.kind().keyword().to_owned(),
    };
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { .. } | ValidationErrorKind::UnevaluatedProperties { .. }
            if names == Names::Hidden =>
        {
            "it has properties that are not allowed".to_owned()
        }
        // The mask of the outer error does not reach the inner one.
        ValidationErrorKind::PropertyNames { error } => {
            shorten(&error.masked_with("the name of a property").to_string())
        }
        _ => shorten(&error.masked_with("it").to_string()),
    };
    ValueFault { pointer: error.instance_path().to_string(), rule, message }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What is wrong with the arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentFault {
    /// Name of the parameter; empty if the number of arguments is wrong.
    pub param: String,
    /// JSON pointer into the argument.
    pub pointer: String,
    /// As [`ValueFault::rule`]; also `required` and `arguments`.
    pub rule: String,
    /// What is wrong, for the author of the calling code.
    pub message: String,
}

/// The compiled checks of one export.
#[derive(Debug)]
pub struct ExportChecker {
    params: Vec<ParamChecker>,
    returns: Checker,
}

#[derive(Debug)]
struct ParamChecker {
    name: String,
    optional: bool,
    checker: Checker,
}

impl ExportChecker {
    /// Compiles the schemas of an export.
    ///
    /// Those of a parsed manifest were compiled before, so a fault means that the two were built differently.
    pub fn compile(export: &Export) -> Result<Self, SchemaFault> {
        let compile = |param: &crate::manifest::Param| {
            let checker = Checker::compile(&param.schema)?;
            Ok(ParamChecker { name: param.name.clone(), optional: is_optional(&param.schema, &checker), checker })
        };
        let params = export.params.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { params, returns: Checker::compile(&export.returns.schema)? })
    }

    /// Checks the arguments of a call, all of them.
    pub fn check_args(&self, args: &[Value]) -> Result<(), Vec<ArgumentFault>> {
        let mut faults = Vec::new();
        if args.len() > self.params.len() {
            let message = format!("takes at most {} arguments, not {}", self.params.len(), args.len());
            let (param, pointer, rule) = (String::new(), String::new(), "arguments".to_owned());
            faults.push(ArgumentFault { param, pointer, rule, message });
        }
        let work: usize = self.with_args(args).map(|(checker, value)| checker.work(value)).sum();
        if work > work::MOST {
            let (param, pointer, rule) = (String::new(), String::new(), "work".to_owned());
            let message = format!("the call {}", too_much(work));
            return Err(vec![ArgumentFault { param, pointer, rule, message }]);
        }
        for (index, param) in self.params.iter().enumerate() {
            match args.get(index) {
                Some(value) => faults.extend(param.check(value)),
                None if param.optional => {}
                None => faults.push(param.missing()),
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Whether [`Self::check_args`] may take longer than a thread that serves others should be kept: up to seconds.
    pub fn args_take_long(&self, args: &[Value]) -> bool {
        self.with_args(args).any(|(checker, value)| checker.takes_long(value))
    }

    /// As [`Self::args_take_long`], for [`Self::check_result`].
    pub fn result_takes_long(&self, value: &Value) -> bool {
        self.returns.takes_long(value)
    }

    fn with_args<'a>(&'a self, args: &'a [Value]) -> impl Iterator<Item = (&'a Checker, &'a Value)> {
        self.params.iter().map(|param| &param.checker).zip(args)
    }

    /// Checks what the provider returned.
    pub fn check_result(&self, value: &Value) -> Result<(), Vec<ValueFault>> {
        self.returns.check(value)
    }

    /// Which parameters may be left out at the end of a call.
    pub fn optional(&self) -> Vec<bool> {
        self.params.iter().map(|param| param.optional).collect()
    }
}

impl ParamChecker {
    fn check(&self, value: &Value) -> Vec<ArgumentFault> {
        let faults = self.checker.check_naming(value, Names::Shown).err().unwrap_or_default();
        let named = |ValueFault { pointer, rule, message }| {
            let place = if pointer.is_empty() { String::new() } else { format!(" at {pointer}") };
            let message = format!("argument {}{place}: {message}", self.name);
            ArgumentFault { param: self.name.clone(), pointer, rule, message }
        };
        faults.into_iter().map(named).collect()
    }

    fn missing(&self) -> ArgumentFault {
        let message = format!("argument {} is missing", self.name);
        ArgumentFault { param: self.name.clone(), pointer: String::new(), rule: "required".to_owned(), message }
    }
}

fn is_optional(schema: &Value, checker: &Checker) -> bool {
    schema.get("default").is_some() || checker.validator.is_valid(&Value::Null)
}

#[cfg(test)]
mod tests {
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
        let parsed =
            crate::manifest::parse(manifest.to_string().as_bytes(), crate::manifest::Limits::default()).unwrap();
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
        assert_eq!(checker.optional(), [false, true, true, true]);
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
        let tree =
            json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"left": {"$ref": "#/$defs/tree"}}}}});
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

    #[test]
    fn ordinary_large_values_pass() {
        let field = json!({"type": ["string", "null"], "description": "words", "pattern": "^[a-z]*$"});
        let fields = |n: usize| (0..n).map(|n| (format!("field{n}"), field.clone())).collect::<serde_json::Map<_, _>>();
        let record = |n: usize| json!({"type": "object", "properties": fields(n), "additionalProperties": false});
        let values =
            |n: usize| (0..n).map(|n| (format!("field{n}"), json!("abcdefg"))).collect::<serde_json::Map<_, _>>();
        for (count, n) in [(10_000, 10), (3_000, 50)] {
            let checker = Checker::compile(&json!({"type": "array", "items": record(n)})).unwrap();
            assert!(checker.check(&json!(vec![values(n); count])).is_ok(), "{count} records of {n} fields");
        }
        let long = json!({"field0": "a".repeat(4 * 1024 * 1024)});
        assert!(Checker::compile(&record(30)).unwrap().check(&long).is_ok());
        let many = json!(vec![0; 2_000_000]);
        assert!(
            Checker::compile(&json!({"type": "array", "items": {"type": "integer"}})).unwrap().check(&many).is_ok()
        );
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
}
