//! Child processes that cannot outlive the test, with their output as something to wait on.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::Pid,
};

use crate::wait;

/// Interval between two looks at whether waiting was interrupted.
const INTERRUPTION_INTERVAL: Duration = Duration::from_millis(100);
/// Lines of output quoted in an error.
const TAIL_LINES: usize = 20;

/// A running child process, in its own process group.
///
/// Dropping it kills the group and waits for the child.
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Process {
    /// Starts `command` with both outputs captured; `name` is for messages.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: Command) -> Result<Self> {
        Self::spawn_copying_stderr(name, command, None)
    }

    /// Does the same as [`spawn`](Self::spawn); standard error is also written to `copy`, line by line.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_copying_stderr(
        name: &str,
        mut command: Command,
        copy: Option<File>,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        die_with_parent(&mut command, Signal::SIGKILL);
        let mut child =
            spawn_on_lasting_thread(command).with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout: Stream::read_from(stdout, None),
            stderr: Stream::read_from(stderr, copy),
        })
    }

    /// Process id, also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Returns the standard output so far.
    #[must_use]
    pub fn stdout(&self) -> &Stream {
        &self.stdout
    }

    /// Returns the standard error so far.
    #[must_use]
    pub fn stderr(&self) -> &Stream {
        &self.stderr
    }

    /// Waits for the first line of standard error, from line `from` on, that contains `pattern`.
    ///
    /// # Errors
    /// When the process closes its standard error or `deadline` passes first; the message ends with
    /// the last lines.
    pub fn wait_for_line(&self, pattern: &str, from: usize, deadline: Duration) -> Result<String> {
        self.stderr
            .wait_for_line(pattern, from, deadline)
            .with_context(|| format!("{} did not say {pattern:?}", self.name))
    }

    /// Sends `signal` to the process alone.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid(), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it still runs after `deadline`; the message ends with its last lines.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to exit", self.name);
        let child = &mut self.child;
        let status = wait::until(&what, deadline, || Ok(child.try_wait()?))
            .with_context(|| format!("its last lines:\n{}", self.stderr.tail()))?;
        // The readers end at end of file: everything it wrote is captured from here on.
        self.stdout.wait_for_end(deadline)?;
        self.stderr.wait_for_end(deadline)?;
        Ok(status)
    }

    /// True while the process has not exited.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills the process group with SIGKILL and waits for the child.
    pub fn kill(&mut self) {
        // ESRCH: it is gone already.
        let _ = signal::killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the process that `command` will start get `signal` when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command, signal: Signal) {
    // SAFETY: the closure runs between fork and exec and only calls prctl, which is
    // async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(move || prctl::set_pdeathsig(signal).map_err(Into::into));
    }
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or exits with an error; the message holds its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One captured output of a process, line by line.
#[derive(Default)]
pub struct Stream {
    captured: Mutex<Captured>,
    grew: Condvar,
}

#[derive(Default)]
struct Captured {
    lines: Vec<String>,
    ended: bool,
}

impl Stream {
    fn read_from(source: impl Read + Send + 'static, mut copy: Option<File>) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let shared = Arc::clone(&stream);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if let Some(copy) = &mut copy {
                    // A full disk must not stop the capture that tests wait on.
                    let _ = copy.write_all(&line);
                }
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                shared.lock().lines.push(text);
                shared.grew.notify_all();
                line.clear();
            }
            shared.lock().ended = true;
            shared.grew.notify_all();
        });
        stream
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Everything so far as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Number of lines so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// True if nothing was written so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a line with index `from` or higher that contains `pattern`.
    ///
    /// # Errors
    /// When the stream ends or `deadline` passes first; the message ends with the last lines.
    pub fn wait_for_line(&self, pattern: &str, from: usize, deadline: Duration) -> Result<String> {
        let mut looked_at = from;
        self.wait_until(deadline, |captured| {
            let fresh = captured.lines.get(looked_at..).unwrap_or_default();
            let found = fresh.iter().find(|line| line.contains(pattern)).cloned();
            looked_at = looked_at.max(captured.lines.len());
            found
        })
    }

    /// Waits until there are more than `from` lines, and returns those from `from` on; empty when
    /// the stream has ended or `deadline` has passed.
    #[must_use]
    pub fn lines_from(&self, from: usize, deadline: Duration) -> Vec<String> {
        self.wait_until(deadline, |captured| {
            let fresh = captured.lines.get(from..).unwrap_or_default();
            (!fresh.is_empty()).then(|| fresh.to_vec())
        })
        .unwrap_or_default()
    }

    fn wait_for_end(&self, deadline: Duration) -> Result<()> {
        self.wait_until(deadline, |captured| captured.ended.then_some(()))
            .context("a descendant still holds the output of a process that has exited")
    }

    fn wait_until<T>(
        &self,
        deadline: Duration,
        mut look: impl FnMut(&Captured) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        let mut captured = self.lock();
        loop {
            if let Some(value) = look(&captured) {
                return Ok(value);
            }
            wait::require_uninterrupted()?;
            let left = end.saturating_duration_since(Instant::now());
            if captured.ended || left.is_zero() {
                let cause = if captured.ended {
                    "the output ended".to_owned()
                } else {
                    format!("waited {deadline:?}")
                };
                bail!("{cause}; the last lines:\n{}", tail_of(&captured.lines));
            }
            captured = self
                .grew
                .wait_timeout(captured, left.min(INTERRUPTION_INTERVAL))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(crate) fn tail(&self) -> String {
        tail_of(&self.lock().lines)
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        // Lines are only ever pushed whole, so a panic elsewhere leaves them valid.
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tail_of(lines: &[String]) -> String {
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    tail.iter().map(|line| format!("    {line}\n")).collect()
}

type SpawnRequest = (Command, mpsc::Sender<std::io::Result<Child>>);

/// PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2)), and a test's thread may end
/// before the parts that it hands on. So one thread, which lasts as long as this process, forks.
pub(crate) fn spawn_on_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: LazyLock<Mutex<mpsc::Sender<SpawnRequest>>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, child) = mpsc::channel();
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .context("the spawning thread is gone")?;
    Ok(child.recv().context("the spawning thread is gone")??)
}
