//! A keep-alive HTTP/1.1 client of few instructions, so that what is measured is the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::Outcome;

/// A connection, in the clear or inside TLS.
pub(crate) trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// One connection.
pub(crate) struct Http {
    stream: BufReader<Box<dyn Duplex>>,
    host: String,
    /// The header of the credential, where there is one.
    credential: String,
    /// The head of the last answer.
    pub(crate) head: String,
}

impl Http {
    pub(crate) fn connect(address: &str) -> Outcome<Self> {
        let host = address.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host)?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Box::new(stream), host, String::new()))
    }

    /// Over what is connected already.
    pub(crate) fn over(stream: Box<dyn Duplex>, host: String, credential: String) -> Self {
        Self { stream: BufReader::new(stream), host, credential, head: String::new() }
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Outcome<Vec<u8>> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            self.credential,
            body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    pub(crate) fn get(&mut self, path: &str) -> Outcome<Vec<u8>> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: {}\r\n{}\r\n", self.host, self.credential)?;
        self.answer()
    }

    fn answer(&mut self) -> Outcome<Vec<u8>> {
        self.head.clear();
        self.stream.read_line(&mut self.head)?;
        if !self.head.contains(" 200 ") {
            return Err(format!("wanted 200, got {}", self.head).into());
        }
        while !self.head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut self.head)? == 0 {
                return Err("the answer ends in its head".into());
            }
        }
        let length = header(&self.head, "content-length").map_or(Ok(0), |value| value.parse())?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }
}

/// The value of a header, its name in small letters.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
}
