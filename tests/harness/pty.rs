//! A program in a pseudo terminal, and the screen that its user would see.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};

use crate::{
    process::{die_with_parent, spawn_on_lasting_thread},
    wait,
};

/// Time for the screen to show what is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program in a pseudo terminal of its own. Dropping it kills the program.
pub struct Pty {
    master: File,
    child: Child,
    screen: Arc<Mutex<Emulator>>,
}

struct Emulator {
    parser: vt100::Parser,
    bytes: usize,
}

impl Pty {
    /// Starts `command` in a terminal of `rows` and `columns`.
    ///
    /// # Errors
    /// When there is no terminal, or the program cannot be started.
    pub fn spawn(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let pair = openpty(&size(rows, columns), None).context("open a pseudo terminal")?;
        let end = || -> Result<Stdio> { Ok(pair.slave.try_clone()?.into()) };
        command.stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR");
        die_with_parent(&mut command, Signal::SIGKILL);
        become_foreground(&mut command);
        let child = spawn_on_lasting_thread(command)?;
        drop(pair.slave);
        let parser = vt100::Parser::new(positive(rows)?, positive(columns)?, 0);
        let screen = Arc::new(Mutex::new(Emulator { parser, bytes: 0 }));
        let master = File::from(pair.master);
        follow(master.try_clone()?, screen.clone());
        Ok(Self { master, child, screen })
    }

    /// Types `keys`.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("type")
    }

    /// Changes the size of the terminal, which signals it to the program.
    ///
    /// # Errors
    /// When the terminal is closed.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.lock().parser.screen_mut().set_size(positive(rows)?, positive(columns)?);
        let size = size(rows, columns);
        // SAFETY: the call reads the size, which lives until it returns.
        let changed =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        Errno::result(changed).context("change the size of the terminal").map(|_| ())
    }

    /// Returns the lines of the screen.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let emulator = self.lock();
        let screen = emulator.parser.screen();
        screen.rows(0, screen.size().1.get()).collect()
    }

    /// Waits until `holds` is true of the screen, and returns its lines.
    ///
    /// # Errors
    /// When that takes too long; the message has the screen.
    pub fn wait_until(
        &self,
        what: &str,
        mut holds: impl FnMut(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        wait::until(what, DEADLINE, || Ok(Some(self.lines()).filter(|lines| holds(lines))))
            .with_context(|| format!("the screen:\n{}", self.lines().join("\n")))
    }

    /// Waits until the screen shows `text`, and returns its lines.
    ///
    /// # Errors
    /// See [`wait_until`](Self::wait_until).
    pub fn wait_for(&self, text: &str) -> Result<Vec<String>> {
        self.wait_until(&format!("the screen to show {text:?}"), |lines| {
            lines.iter().any(|line| line.contains(text))
        })
    }

    /// Returns true if the program shows the alternate screen.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.lock().parser.screen().alternate_screen()
    }

    /// Returns true if the terminal is as a shell expects it: the usual screen, with a cursor, line by line
    /// and with echo.
    ///
    /// # Errors
    /// When the terminal's modes cannot be read.
    pub fn is_restored(&self) -> Result<bool> {
        let modes = tcgetattr(&self.master).context("read the terminal's modes")?.local_flags;
        let usual = modes.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        let emulator = self.lock();
        let screen = emulator.parser.screen();
        Ok(usual && !screen.alternate_screen() && !screen.hide_cursor())
    }

    /// Returns the number of bytes that the program has written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.lock().bytes
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).context("send a signal")
    }

    /// Waits until the program is stopped, as a shell does.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_stop(&self) -> Result<()> {
        let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG;
        wait::until("the program to stop", DEADLINE, || {
            Ok(matches!(waitpid(self.pid(), Some(flags))?, WaitStatus::Stopped(..)).then_some(()))
        })
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    /// When that takes too long; the message has the screen.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = wait::until("the program to end", DEADLINE, || Ok(child.try_wait()?));
        ended.with_context(|| format!("the screen:\n{}", self.lines().join("\n")))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Emulator> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn positive(length: u16) -> Result<NonZero<u16>> {
    NonZero::new(length).context("a terminal has rows and columns")
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Makes the program the leader of a session, whose terminal is its standard input.
fn become_foreground(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec, and makes two system calls, which allocate nothing.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
}

/// Passes what the program writes to the emulator, until the terminal is closed.
fn follow(mut master: File, screen: Arc<Mutex<Emulator>>) {
    thread::spawn(move || {
        let mut bytes = [0; 4_096];
        // EIO once no process has the terminal open.
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            let mut emulator = screen.lock().unwrap_or_else(PoisonError::into_inner);
            emulator.parser.process(&bytes[..count]);
            emulator.bytes += count;
        }
    });
}
