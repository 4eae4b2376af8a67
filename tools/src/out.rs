//! Standard output. A reader that goes away (`quipu | head`) ends the output, not the run.

use std::fmt::Display;
use std::io::Write;

/// Prints a line.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
