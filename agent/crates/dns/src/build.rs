//! Writes DNS messages for tests.

#![allow(clippy::unwrap_used, reason = "only tests build messages here")]

use super::Message;

/// A message under construction; sections must be added in their order.
pub struct Build(Vec<u8>);

impl Build {
    /// A header with RD set, and nothing behind it.
    pub fn message(id: u16, response: bool) -> Self {
        let [high, low] = id.to_be_bytes();
        Self(vec![high, low, if response { 0x81 } else { 0x01 }, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// A question of class IN. Labels are divided by dots, without escapes.
    pub fn question(mut self, name: &str, qtype: u16) -> Self {
        for label in name.split('.').filter(|label| !label.is_empty()) {
            self.0.push(u8::try_from(label.len()).unwrap());
            self.0.extend(label.as_bytes());
        }
        self.0.push(0);
        self.0.extend([qtype.to_be_bytes(), [0, 1]].concat());
        self.count(0)
    }

    /// A record of class IN whose owner is the first question's name.
    pub fn answer(mut self, rtype: u16, ttl: u32, rdata: &[u8]) -> Self {
        self.0.extend([0xc0, 0x0c]);
        self.0.extend([rtype.to_be_bytes(), [0, 1]].concat());
        self.0.extend(ttl.to_be_bytes());
        self.0.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        self.0.extend(rdata);
        self.count(1)
    }

    /// An OPT record: 1,232 bytes, version 0, DO.
    pub fn opt(mut self, options: &[u8]) -> Self {
        self.0.extend(b"\0\0\x29\x04\xd0\0\0\x80\0");
        self.0.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        self.0.extend(options);
        self.count(3)
    }

    /// The bytes.
    pub fn wire(self) -> Vec<u8> {
        self.0
    }

    /// The message as the agent reads it.
    pub fn parse(self) -> Message {
        Message::parse(&self.0).unwrap()
    }

    fn count(mut self, section: usize) -> Self {
        self.0[5 + 2 * section] += 1;
        self
    }
}
