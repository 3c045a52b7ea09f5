//! Asks for a secret at the terminal without showing what is typed.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::follow::Stop;
use crate::output::{Failure, Printer};

/// Longest secret that is typed, in bytes.
const TYPED_BYTES_MAX: usize = 4096;

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn stdin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // The line break is shown, so that what follows stands on a line of its own.
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).unwrap_or_default();
    }
}

/// Asks for the secret inputs of an action, one after the other.
///
/// # Errors
/// Ctrl-C; a terminal that cannot be silent; the end of input.
pub(crate) async fn ask(
    names: Vec<String>,
    printer: &Printer,
    stop: &mut Stop,
) -> Result<Vec<(String, Zeroizing<String>)>, Failure> {
    let mut typed = Vec::with_capacity(names.len());
    for name in names {
        // Restored when this leaves the loop, also by an interrupt: the thread below is left behind then.
        let hidden = Hidden::stdin().map_err(|error| Failure::unexpected("the terminal cannot be silent", &error))?;
        printer.prompt(format!("{name} (not shown):"));
        let answer = stop.unless(line()).await;
        drop(hidden);
        let answer = answer.map_err(|stopped| stopped.failure("a secret was awaited"))?;
        let Some(answer) = answer else {
            return Err(Failure::usage(format!("nothing was typed for `{name}`")).hint(format!("{name}=@FILE")));
        };
        typed.push((name, answer));
    }
    Ok(typed)
}

/// One line of standard input. A thread that reads it cannot be stopped, so it is left behind; it ends with
/// the program.
async fn line() -> Option<Zeroizing<String>> {
    let (answer, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Room from the start: a string that grows leaves its old bytes behind.
        let mut line = Zeroizing::new(String::with_capacity(TYPED_BYTES_MAX));
        let read = io::BufRead::read_line(&mut io::Read::take(io::stdin().lock(), TYPED_BYTES_MAX as u64), &mut line);
        let whole = read.is_ok_and(|bytes| bytes > 0);
        let text = line.trim_end_matches(['\n', '\r']).to_owned();
        // Nobody listens any more after an interrupt.
        drop(answer.send(whole.then(|| Zeroizing::new(text))));
    });
    read.await.ok().flatten()
}
