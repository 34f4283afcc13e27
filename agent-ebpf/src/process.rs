//! The process that uses a socket.

/// Size of a command name in bytes, with its final zero (`TASK_COMM_LEN`).
pub const COMMAND_BYTES: usize = 16;

/// Value of the `PROCESSES` map; the key is the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process that connected the socket or first sent a query from it: the thread group in the first
    /// PID namespace, or [`Self::SEVERAL`].
    pub pid: u32,
    /// Name of the thread that did, padded with zeros (`PR_SET_NAME`).
    pub command: [u8; COMMAND_BYTES],
}

const _: () = assert!(size_of::<Process>() == 20);

impl Process {
    /// Number of no process: several have used the socket, so that none is named.
    pub const SEVERAL: u32 = 0;

    /// Returns the name up to its first zero.
    #[must_use]
    pub fn command(&self) -> &[u8] {
        let length = self.command.iter().position(|byte| *byte == 0);
        &self.command[..length.unwrap_or(COMMAND_BYTES)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_with_its_first_zero() {
        let command = |text: &[u8]| {
            let mut command = [0; COMMAND_BYTES];
            command[..text.len()].copy_from_slice(text);
            Process { pid: 1, command }.command().to_vec()
        };
        for (stored, expected) in [
            (&b""[..], &b""[..]),
            (b"curl", b"curl"),
            (b"curl\0left over", b"curl"),
            (b"sixteen bytes ..", b"sixteen bytes .."),
        ] {
            assert_eq!(command(stored), expected);
        }
    }
}
