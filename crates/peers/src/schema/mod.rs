//! Arguments and results against the schemas that a manifest declares for them.
//!
//! Owns how JSON Schema (2020-12) is applied: formats are checked, references to other documents are refused, patterns
//! run in linear time, and a schema that would multiply work is refused when it is compiled. Must not know who calls.
//!
//! **Arguments that may be left out.** JavaScript callers leave out trailing arguments; a manifest has no word for
//! that. So a trailing argument may be missing if its schema has a `default` or accepts `null`. The provider then gets
//! fewer arguments, and its own default applies. `undefined` before a given argument travels as `null`.

mod expansion;
mod patterns;
mod reads;
mod work;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;

use crate::json::{self, MAX_DEPTH};
use crate::manifest::Export;

use expansion::Expanded;
use work::Size;

pub(crate) use expansion::resolve;
pub(crate) use patterns::Patterns;

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
        Self::compile_with(schema, &mut Patterns::default())
    }

    /// Compiles one of several schemas whose patterns share an allowance.
    pub(crate) fn compile_with(schema: &Value, patterns: &mut Patterns) -> Result<Self, SchemaFault> {
        let expanded = expansion::check(schema, patterns)?;
        match patterns::validator(schema) {
            Ok(validator) => Ok(Self { validator, expanded }),
            Err(error) => Err(schema_fault(&error)),
        }
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
        let work = work([(self, value)].into_iter());
        if work > work::MOST {
            return Err(whole("work", too_much(work)));
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

    /// Whether a trailing argument may be missing, if this is compiled from its `schema`.
    pub(crate) fn is_optional(&self, schema: &Value) -> bool {
        schema.get("default").is_some() || self.validator.is_valid(&Value::Null)
    }

    fn takes_long(&self, value: &Value) -> bool {
        Size::of(value).is_long(self.expanded.parts) || work::is_long(self.expanded.reads.work(value))
    }
}

/// Work of checks that are done together, or of a part of them that is too much already.
fn work<'a>(checks: impl Iterator<Item = (&'a Checker, &'a Value)> + Clone) -> usize {
    let parts = checks.clone().map(|(checker, value)| Size::of(value).work(checker.expanded.parts));
    let parts = parts.fold(0, usize::saturating_add);
    if parts > work::MOST {
        return parts; // To count what is read takes a step for each value and part.
    }
    checks.map(|(checker, value)| checker.expanded.reads.work(value)).fold(parts, usize::saturating_add)
}

fn too_much(work: usize) -> String {
    format!(
        "is too large for its schema: values times the schema's parts, and texts times their patterns' sizes, are {work}, \
         and may be {}",
        work::MOST
    )
}

fn schema_fault(error: &ValidationError<'_>) -> SchemaFault {
    let message = match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => {
            "is no regular expression that is supported: it is malformed, has look-around or a back reference, or is too \
             large once its repetitions are written out"
                .to_owned()
        }
        _ => format!("is no valid JSON Schema: {}", shorten(&error.masked_with("this").to_string())),
    };
    SchemaFault { pointer: error.instance_path().to_string(), message }
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
            Ok(ParamChecker { name: param.name.clone(), optional: param.optional, checker })
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
        let work = work(self.with_args(args));
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

    fn with_args<'a>(&'a self, args: &'a [Value]) -> impl Iterator<Item = (&'a Checker, &'a Value)> + Clone {
        self.params.iter().map(|param| &param.checker).zip(args)
    }

    /// Checks what the provider returned.
    pub fn check_result(&self, value: &Value) -> Result<(), Vec<ValueFault>> {
        self.returns.check(value)
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

#[cfg(test)]
mod tests;
