//! Keys, and what they do to the model.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Mode, Model};

/// Rows that PgUp and PgDn scroll.
const PAGE: usize = 10;

/// Maximum length of a filter; names have some 250 characters.
const MAX_FILTER: usize = 60;

/// An action outside of the model that a key requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    /// Stop the process until it is continued, as Ctrl-Z does.
    Suspend,
    /// Redraw everything.
    Redraw,
    /// Request snapshots in this interval, in milliseconds.
    Interval(u64),
}

/// Applies a key.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Effect {
    if key.kind == KeyEventKind::Release {
        return Effect::Nothing;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Effect::Quit,
            KeyCode::Char('z') => Effect::Suspend,
            KeyCode::Char('l') => Effect::Redraw,
            _ => Effect::Nothing,
        };
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        // Terminals send Esc before the key; nothing here needs Alt, but fast fingers type Esc.
        press(model, KeyCode::Esc.into());
        return press(model, key.code.into());
    }
    match model.mode {
        Mode::Help => {
            model.mode = Mode::Normal;
            Effect::Nothing
        }
        Mode::Filter => {
            edit_filter(model, key.code);
            Effect::Nothing
        }
        Mode::Normal => press_normal(model, key.code),
    }
}

fn edit_filter(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter => model.mode = Mode::Normal,
        KeyCode::Esc => {
            model.mode = Mode::Normal;
            model.filter = std::mem::take(&mut model.filter_before);
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(letter) if model.filter.chars().count() < MAX_FILTER => {
            model.filter.push(letter);
        }
        _ => {}
    }
    model.scroll = 0;
}

fn press_normal(model: &mut Model, code: KeyCode) -> Effect {
    match code {
        KeyCode::Char('q') => return Effect::Quit,
        KeyCode::Char('?' | 'h') => model.mode = Mode::Help,
        KeyCode::Tab | KeyCode::Right => model.move_focus(1),
        KeyCode::BackTab | KeyCode::Left => model.move_focus(-1),
        KeyCode::Enter => model.is_zoomed = !model.is_zoomed,
        KeyCode::Esc => escape(model),
        KeyCode::Char('s') => model.sort_by_next(),
        KeyCode::Char('p' | ' ') => model.toggle_pause(),
        KeyCode::Char('/') => {
            model.mode = Mode::Filter;
            model.filter_before = std::mem::take(&mut model.filter);
        }
        KeyCode::Char('+' | '=') => return interval(model, true),
        KeyCode::Char('-') => return interval(model, false),
        code => scroll(model, code),
    }
    Effect::Nothing
}

/// Undoes one thing: the zoom, or else the filter.
fn escape(model: &mut Model) {
    match model.is_zoomed {
        true => model.is_zoomed = false,
        false => model.filter.clear(),
    }
}

fn interval(model: &mut Model, longer: bool) -> Effect {
    model.change_interval(longer).map_or(Effect::Nothing, Effect::Interval)
}

/// Scrolls; the view keeps the position within the panel.
fn scroll(model: &mut Model, code: KeyCode) {
    model.scroll = match code {
        KeyCode::Up => model.scroll.saturating_sub(1),
        KeyCode::Down => model.scroll.saturating_add(1),
        KeyCode::PageUp => model.scroll.saturating_sub(PAGE),
        KeyCode::PageDown => model.scroll.saturating_add(PAGE),
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        _ => model.scroll,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(model: &mut Model, keys: &str) -> Effect {
        let codes = keys.chars().map(|key| match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        });
        let press_one = |_, code: KeyCode| press(model, code.into());
        codes.fold(Effect::Nothing, press_one)
    }

    #[test]
    fn a_filter_is_written_kept_and_cancelled() {
        let mut model = Model::new(2_000, String::new());
        // Keys that mean something else otherwise are letters of the filter.
        assert_eq!(type_in(&mut model, "/shoq\x08p"), Effect::Nothing);
        assert_eq!((&*model.filter, model.mode), ("shop", Mode::Filter));
        type_in(&mut model, "\n");
        assert!(model.passes("SHOP/web") && !model.passes("kube-system/dns"));
        type_in(&mut model, "/other\x1b");
        assert_eq!((&*model.filter, model.mode), ("shop", Mode::Normal));
        type_in(&mut model, "\x1b");
        assert_eq!(model.filter, "");
        assert_eq!(type_in(&mut model, "q"), Effect::Quit);
    }

    #[test]
    fn the_interval_stays_within_its_limits() {
        let mut model = Model::new(2_000, String::new());
        assert_eq!(type_in(&mut model, "+"), Effect::Interval(5_000));
        assert_eq!(type_in(&mut model, "--"), Effect::Interval(1_000));
        type_in(&mut model, "++++++++++");
        assert_eq!(model.interval_ms, 60_000);
        assert_eq!(type_in(&mut model, "+"), Effect::Nothing);
        type_in(&mut model, "----------");
        assert_eq!(model.interval_ms, 250);
    }

    #[test]
    fn escape_directly_before_a_key_is_escape() {
        let mut model = Model::new(2_000, String::new());
        type_in(&mut model, "/shop");
        let key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
        assert_eq!(press(&mut model, key), Effect::Quit);
        assert_eq!(model.filter, "");
    }

    #[test]
    fn control_keys_work_in_every_mode() {
        for mode in [Mode::Normal, Mode::Help, Mode::Filter] {
            for (key, effect) in
                [('c', Effect::Quit), ('z', Effect::Suspend), ('l', Effect::Redraw)]
            {
                let mut model = Model::default();
                model.mode = mode;
                let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
                assert_eq!(press(&mut model, key), effect);
            }
        }
    }
}
