//! A client's script as a process that says, line by line, how far it is.

use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

use crate::support::within;

/// A running script. Killed when dropped; if the test has failed, what it has said is printed.
pub struct Script {
    process: Child,
    output: Lines<BufReader<Receiver>>,
    said: Vec<String>,
}

impl Script {
    /// Starts it. Its standard output and standard error are one.
    pub fn start(mut command: Command) -> Self {
        let (output, input) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(input.try_clone().expect("its other end")).stderr(input);
        let process = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the script starts");
        let output = Receiver::from_owned_fd(output.into()).expect("a pipe");
        Self { process, output: BufReader::new(output).lines(), said: Vec::new() }
    }

    /// Waits until it says this.
    pub async fn says(&mut self, wanted: &str) {
        while self.next_line().await.unwrap_or_else(|| panic!("it never said {wanted:?}")) != wanted {}
    }

    /// Waits until it has ended with exit code 0, and answers the last that it has said.
    pub async fn ends_well(self) -> String {
        self.all_it_says().await.pop().unwrap_or_default()
    }

    /// Waits until it has ended with exit code 0, and answers all that it has said.
    pub async fn all_it_says(mut self) -> Vec<String> {
        while self.next_line().await.is_some() {}
        let status = within(self.process.wait()).await.expect("its status");
        assert!(status.success(), "{status}");
        std::mem::take(&mut self.said)
    }

    async fn next_line(&mut self) -> Option<&str> {
        let line = within(self.output.next_line()).await.expect("a line")?;
        self.said.push(line);
        self.said.last().map(String::as_str)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the script's output:\n{}", self.said.join("\n"));
        }
    }
}
