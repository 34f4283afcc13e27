//! The terminal: raw mode, the alternate screen, and their end, whatever ends the view.

use std::{
    io::{self, Stdout, Write},
    panic,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill, raise},
    unistd::Pid,
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode,
        },
    },
};

use super::{
    model::Model,
    view::{self, Palette},
};

/// Exit status of a process that panicked, as the standard library has it.
const PANICKED: i32 = 101;

/// The screen of the view. Dropping it restores the terminal.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    palette: Palette,
    /// Set while the process is stopped, or about to be.
    is_suspended: bool,
}

impl Screen {
    /// Switches to the alternate screen.
    pub(super) fn enter(palette: Palette) -> anyhow::Result<Self> {
        restore_at_panic();
        enter().context("cannot switch the terminal to the alternate screen")?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        let terminal = terminal.inspect_err(|_| leave()).context("cannot draw on the terminal")?;
        Ok(Self { terminal, palette, is_suspended: false })
    }

    /// Draws the model; only cells that have changed are written.
    pub(super) fn draw(&mut self, model: &mut Model) -> anyhow::Result<()> {
        if self.is_suspended {
            return Ok(());
        }
        let palette = self.palette;
        let drawn = self.terminal.draw(|frame| view::draw(frame, model, palette));
        drawn.context("cannot draw on the terminal").map(|_| ())
    }

    /// Draws everything at the next time, as if the terminal were empty.
    pub(super) fn redraw(&mut self) -> anyhow::Result<()> {
        execute!(io::stdout(), Clear(ClearType::All)).context("cannot clear the terminal")?;
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))
            .context("cannot draw on the terminal")?;
        Ok(())
    }

    /// Restores the terminal, and stops the process until it is continued.
    pub(super) fn suspend(&mut self) {
        self.is_suspended = true;
        leave();
        // The default action of SIGTSTP, which is blocked: it is waited for.
        let _ = raise(Signal::SIGSTOP);
    }

    /// Takes the terminal again after the process was continued, whoever stopped it.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        // A shell may have changed the modes of the terminal in the meantime.
        let _ = disable_raw_mode();
        enter().context("cannot switch the terminal to the alternate screen")?;
        self.is_suspended = false;
        self.redraw()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.is_suspended {
            leave();
        }
    }
}

/// Stops the whole job, as the terminal does at Ctrl-Z unless it is in raw mode: `sudo` is part of it.
pub(super) fn stop_job() {
    let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

/// Restores the terminal. Errors are ignored: the terminal may be gone.
fn leave() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = io::stdout().flush();
    let _ = disable_raw_mode();
}

/// Restores the terminal before a panic of any thread is reported, and ends the process then: the view
/// would go on without the thread.
fn restore_at_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        leave();
        report(info);
        std::process::exit(PANICKED);
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read,
        os::fd::{FromRawFd, OwnedFd},
        process::{Command, Stdio},
    };

    use super::*;

    /// Opens a pseudo terminal; returns the emulator's end, and that of a program.
    fn open_terminal() -> (File, OwnedFd) {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let none = std::ptr::null_mut();
        // SAFETY: the two descriptors are written and the size is read; both live until the call returns.
        let opened = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, none, std::ptr::null(), &raw const size)
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptors are new, and nobody else owns them.
        unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
    }

    #[test]
    #[ignore = "run in a terminal by the test below"]
    fn panics_in_a_screen() {
        let _screen = Screen::enter(Palette { colored: false }).unwrap();
        panic!("on purpose");
    }

    #[test]
    fn a_panic_is_reported_on_the_restored_terminal() {
        let (mut master, slave) = open_terminal();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let test = concat!(module_path!(), "::panics_in_a_screen");
        let test = test.split_once("::").unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        drop(slave);
        let mut written = Vec::new();
        // Ends with EIO once the program has closed its end.
        let _ = master.read_to_end(&mut written);
        assert_eq!(child.wait().unwrap().code(), Some(PANICKED));
        let text = String::from_utf8_lossy(&written);
        let at = |part| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text:?}"));
        let (entered, left) = (at("\x1b[?1049h"), at("\x1b[?1049l"));
        // In the usual mode, the terminal writes a carriage return before each line feed.
        let reported = at("on purpose\r\n");
        assert!(entered < left && left < reported && at("\x1b[?25h") < reported, "{text:?}");
    }
}
