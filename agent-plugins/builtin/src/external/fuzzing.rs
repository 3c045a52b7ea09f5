//! Doors for the fuzzer: what reads the answers of plugins that are programs.

use muster_plugin_api::ActionFailure;
use muster_protocol::ddl::Action;

use super::exchange::Written;
use super::reply::{self, Answer};

/// The answer of a program, as its reply file (`None`: it wrote none) and its file of lines.
///
/// Good data fits the description, and a failure says something.
pub fn answer(action: &Action, reply: Option<&[u8]>, lines: Option<&[u8]>, exit_code: i32) {
    let written = |bytes: Option<&[u8]>| bytes.map_or(Written::Nothing, |bytes| Written::Bytes(bytes.to_vec()));
    let failure = ActionFailure::failed(format!("ended with exit code {exit_code}"));
    let answer = Answer { reply: written(reply), output: written(lines), exit_code, failure };
    match reply::answer(action, answer) {
        (Ok(good), _) => {
            assert_eq!(exit_code, 0, "what fails is no success");
            let data = good.data.as_object().expect("data is an object");
            for (name, output) in action.output.iter() {
                let value = data.get(name);
                let unchecked = matches!(output.kind, muster_protocol::ddl::ValueType::Unknown(_));
                let fits = value.is_none_or(|value| value.is_null() || unchecked || output.kind.fits(value));
                assert!(fits || value == Some(&output.default), "`{name}` is not of its type");
            }
        }
        (Err(failure), _) => assert!(!failure.message.is_empty(), "a failure says something"),
    }
    drop(reply::activation(written(reply), exit_code, None));
}
