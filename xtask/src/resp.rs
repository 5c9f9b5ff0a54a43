//! As much of the server's protocol as the chores need: send a command, read a short answer.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::Failure;

/// Sends one command to the server on a port of this machine and returns its answer, if that is a line, a number or a
/// text.
pub(crate) fn ask(port: u16, words: &[&str]) -> Result<String, Failure> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    connection.write_all(command.as_bytes())?;
    let mut answer = BufReader::new(connection);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("-", text)) => Err(format!("the server on port {port} answered {text:?} to {words:?}").into()),
        Some(("$", length)) => {
            let mut text = vec![0; length.parse()?];
            answer.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        _ => Err(format!("the server on port {port} answered {line:?} to {words:?}").into()),
    }
}
