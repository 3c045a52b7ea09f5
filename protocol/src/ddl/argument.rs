//! Arguments: one function decides on both sides whether they fit.

use serde_json::{Map, Value};

use super::named::Named;
use super::schema::{Action, DataQuery, Input, ValueType};
use super::words;
use crate::code::{self, Code};
use crate::expr::did_you_mean;

/// Longest piece of a refused value that a message repeats, in characters.
const GIVEN_CHARACTERS_MAX: usize = 60;

/// Why arguments do not fit an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The action takes no such argument.
    #[error("there is no input `{argument}`; the inputs are {}", words::list_or_none(accepted))]
    Unknown {
        /// The name that was given, escaped and cut.
        argument: String,
        /// All names there are.
        accepted: Vec<String>,
        /// The nearest of them.
        suggestion: Option<String>,
    },
    /// An argument that the action needs is not there.
    #[error("input `{argument}` is missing: it takes {expected}")]
    Missing {
        /// Its name.
        argument: String,
        /// What it takes, in words.
        expected: String,
    },
    /// None of a group of arguments is there, and the action needs one of them.
    #[error("one of the inputs {} is needed", words::list_or_none(inputs))]
    NoneOf {
        /// Their names. At least one.
        inputs: Vec<String>,
    },
    /// Several of a group of arguments are there, and the action takes one of them. A rule of a policy about
    /// one of them could otherwise be walked around with another.
    #[error("only one of the inputs {} is taken at a time", words::list_or_none(inputs))]
    SeveralOf {
        /// Their names. At least two.
        inputs: Vec<String>,
    },
    /// The value does not fit.
    #[error("input `{argument}` takes {expected}")]
    Invalid {
        /// The argument's name.
        argument: String,
        /// What it takes, in words.
        expected: String,
        /// What was given, escaped and cut.
        given: String,
        /// The nearest accepted value, where values are listed.
        suggestion: Option<String>,
    },
}

impl ArgumentError {
    /// The stable code: `unknown-argument`, `missing-argument` or `invalid-argument`.
    #[must_use]
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Unknown { .. } => &code::UNKNOWN_ARGUMENT,
            Self::Missing { .. } | Self::NoneOf { .. } => &code::MISSING_ARGUMENT,
            Self::Invalid { .. } | Self::SeveralOf { .. } => &code::INVALID_ARGUMENT,
        }
    }

    /// Never: the same arguments get the same answer.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }

    /// Which argument it is about.
    #[must_use]
    pub fn argument(&self) -> &str {
        match self {
            Self::Unknown { argument, .. } | Self::Missing { argument, .. } | Self::Invalid { argument, .. } => {
                argument
            }
            Self::NoneOf { inputs } | Self::SeveralOf { inputs } => inputs.first().map_or("", String::as_str),
        }
    }

    /// What was given, where a value was the problem.
    #[must_use]
    pub fn given(&self) -> Option<&str> {
        match self {
            Self::Invalid { given, .. } => Some(given),
            _ => None,
        }
    }

    /// The nearest name or value that would be accepted.
    #[must_use]
    pub fn suggestion(&self) -> Option<&str> {
        match self {
            Self::Unknown { suggestion, .. } | Self::Invalid { suggestion, .. } => suggestion.as_deref(),
            Self::Missing { .. } | Self::NoneOf { .. } | Self::SeveralOf { .. } => None,
        }
    }
}

/// A value that an input refuses: what it takes instead, and the nearest thing to what was given.
pub(super) struct Problem {
    expected: String,
    suggestion: Option<String>,
}

impl Input {
    /// What the input takes, in words that follow "takes": `present, latest or absent`, `a whole number`.
    #[must_use]
    pub fn accepted(&self) -> String {
        let text = |noun: &str| {
            let limit =
                if self.maxlength == 0 { String::new() } else { format!(" of at most {} characters", self.maxlength) };
            match noun {
                "text" if self.validation.is_none() => format!("text{limit}"),
                "text" => format!("{}{}", self.validation.accepted(), limit.replace(" of", ",")),
                _ if self.validation.is_none() && limit.is_empty() => noun.to_owned(),
                _ if self.validation.is_none() => format!("{noun} with texts{limit}"),
                _ => format!("{noun}; each element is {}{}", self.validation.accepted(), limit.replace(" of", ",")),
            }
        };
        match &self.kind {
            ValueType::String => text("text"),
            ValueType::Integer => "a whole number".to_owned(),
            ValueType::Number | ValueType::Float => "a number".to_owned(),
            ValueType::Boolean => "true or false".to_owned(),
            ValueType::List => words::list_or_none(&self.values),
            ValueType::Array => text("a list"),
            ValueType::Hash => "a JSON object".to_owned(),
            ValueType::Any => "any JSON value".to_owned(),
            ValueType::Unknown(word) => format!("nothing: its type `{word}` is not known here"),
        }
    }

    /// What is wrong with a value, if anything.
    pub(super) fn problem(&self, value: &Value) -> Option<Problem> {
        let fits = self.kind.fits(value)
            && match (&self.kind, value) {
                (ValueType::List, Value::String(word)) => self.values.contains(word),
                (ValueType::String, Value::String(text)) => self.text_fits(text),
                (ValueType::Array, Value::Array(elements)) => elements.iter().all(|element| self.element_fits(element)),
                _ => true,
            };
        if fits {
            return None;
        }
        let suggestion = match (&self.kind, value) {
            (ValueType::List, Value::String(word)) => did_you_mean(word, self.values.iter().map(String::as_str)),
            _ => None,
        };
        Some(Problem { expected: self.accepted(), suggestion: suggestion.map(str::to_owned) })
    }

    fn text_fits(&self, text: &str) -> bool {
        let within = self.maxlength == 0 || text.chars().count() as u64 <= self.maxlength;
        within && self.validation.accepts(text)
    }

    /// Numbers and other values in an array pass only where nothing is said about its texts.
    fn element_fits(&self, element: &Value) -> bool {
        match element {
            Value::String(text) => self.text_fits(text),
            _ => self.validation.is_none() && self.maxlength == 0,
        }
    }

    /// Turns a typed word into the value it means for this input; the result still has to be validated.
    fn read(&self, text: &str) -> Option<Value> {
        match &self.kind {
            ValueType::String | ValueType::List | ValueType::Any => Some(Value::from(text)),
            ValueType::Integer => words::whole_number(text),
            ValueType::Number | ValueType::Float => words::number(text),
            ValueType::Boolean => words::boolean(text).map(Value::from),
            ValueType::Array => words::array(text),
            ValueType::Hash => serde_json::from_str(text).ok().filter(Value::is_object),
            ValueType::Unknown(_) => None,
        }
    }
}

impl Action {
    /// Checks arguments and fills in the defaults. Both sides run this and nothing else.
    ///
    /// # Errors
    /// The first argument, in the order of the names, that is unknown or does not fit; then the first
    /// input, in the order of the file, that is missing; then the first group of which not exactly one is there.
    pub fn validate(&self, arguments: &Map<String, Value>) -> Result<Map<String, Value>, ArgumentError> {
        let complete = validate(&self.input, arguments)?;
        // A default fills nothing in here: what is asked for is that somebody said it.
        let is_given = |name: &String| match arguments.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(elements)) => !elements.is_empty(),
            Some(_) => true,
        };
        for group in &self.muster.one_of {
            match group.iter().filter(|name| is_given(name)).count() {
                0 => return Err(ArgumentError::NoneOf { inputs: group.clone() }),
                1 => {}
                _ => return Err(ArgumentError::SeveralOf { inputs: group.clone() }),
            }
        }
        Ok(complete)
    }

    /// Turns `(name, text)` pairs from a command line into typed arguments, and validates them.
    /// Defaults are not filled in: the host does that with its own version of the description.
    ///
    /// A boolean takes true, yes, on, 1 and their opposites. An array takes `a,b` or a JSON array,
    /// and its name may be repeated. A hash takes a JSON object. A name that ends in `:`, as from
    /// `name:=JSON`, takes any JSON as it stands.
    ///
    /// # Errors
    /// As [`Action::validate`]; also a name given twice that is not an array.
    pub fn parse_arguments(&self, pairs: &[(String, String)]) -> Result<Map<String, Value>, ArgumentError> {
        let mut arguments = Map::new();
        for (name, text) in pairs {
            let (name, is_json) = match name.strip_suffix(':') {
                Some(name) => (name, true),
                None => (name.as_str(), false),
            };
            let input = self.input.get(name).ok_or_else(|| unknown(&self.input, name))?;
            let value = if is_json { serde_json::from_str(text).ok() } else { input.read(text) };
            let value = value.ok_or_else(|| invalid(name, input.refusal(is_json), text, None))?;
            match (arguments.get_mut(name), value) {
                (None, value) => {
                    arguments.insert(name.to_owned(), value);
                }
                (Some(Value::Array(present)), Value::Array(more)) => present.extend(more),
                (Some(_), _) => return Err(invalid(name, "one value, not two".to_owned(), text, None)),
            }
        }
        self.validate(&arguments)?;
        Ok(arguments)
    }
}

impl DataQuery {
    /// Names the positional arguments of a call and validates them.
    ///
    /// # Errors
    /// As [`Action::validate`]; an argument too many is unknown under its position, as in `3`.
    pub fn validate(&self, arguments: &[Value]) -> Result<Map<String, Value>, ArgumentError> {
        let mut named = Map::new();
        let mut names = self.input.names();
        for (index, value) in arguments.iter().enumerate() {
            let name = names.next().ok_or_else(|| unknown(&self.input, &(index + 1).to_string()))?;
            named.insert(name.to_owned(), value.clone());
        }
        validate(&self.input, &named)
    }
}

impl Input {
    fn refusal(&self, is_json: bool) -> String {
        if is_json { "JSON after `:=`".to_owned() } else { self.accepted() }
    }
}

fn validate(inputs: &Named<Input>, arguments: &Map<String, Value>) -> Result<Map<String, Value>, ArgumentError> {
    for (name, value) in arguments {
        let input = inputs.get(name).ok_or_else(|| unknown(inputs, name))?;
        if let Some(problem) = input.problem(value) {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if input.is_secret() {
                return Err(invalid(name, problem.expected, "***", None));
            }
            return Err(invalid(name, problem.expected, &shown, problem.suggestion));
        }
    }
    let mut complete = arguments.clone();
    for (name, input) in inputs.iter().filter(|(name, _)| !arguments.contains_key(*name)) {
        if let Some(default) = input.usable_default() {
            complete.insert(name.to_owned(), default.clone());
        } else if input.is_required() {
            return Err(ArgumentError::Missing { argument: name.to_owned(), expected: input.accepted() });
        }
    }
    Ok(complete)
}

fn unknown(inputs: &Named<Input>, name: &str) -> ArgumentError {
    ArgumentError::Unknown {
        argument: words::cut(name, GIVEN_CHARACTERS_MAX),
        accepted: inputs.names().map(str::to_owned).collect(),
        suggestion: did_you_mean(name, inputs.names()).map(str::to_owned),
    }
}

fn invalid(name: &str, expected: String, given: &str, suggestion: Option<String>) -> ArgumentError {
    ArgumentError::Invalid {
        argument: name.to_owned(),
        expected,
        given: words::cut(given, GIVEN_CHARACTERS_MAX),
        suggestion,
    }
}
