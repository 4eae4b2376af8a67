//! How a command fails: by what it was given, or under way. Decides the exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was given cannot be worked with (options, folder): exit code 2.
    Input(String),
    /// The engine failed under way, or does not hold what it should: exit code 1.
    Run(String),
}

impl Failure {
    /// An input that cannot be worked with, named.
    pub(crate) fn input(why: impl fmt::Display) -> Self {
        Failure::Input(why.to_string())
    }

    /// Something that failed under way.
    pub(crate) fn run(why: impl fmt::Display) -> Self {
        Failure::Run(why.to_string())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Input(_) => ExitCode::from(2),
            Failure::Run(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Input(why) | Failure::Run(why) => f.write_str(why),
        }
    }
}

/// An engine's error outside of opening: it failed under way.
impl From<quipu::Error> for Failure {
    fn from(error: quipu::Error) -> Self {
        Failure::run(error)
    }
}
