// SPDX-License-Identifier: MIT OR Apache-2.0
//! Draws what is known.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::view::{Mode, View};
use crate::run::model::{Model, Partition};
use crate::run::words::Weight;

/// From this width on events stand beside the guests.
const WIDE: u16 = 110;
/// A pane that is lower shows nothing that is worth its frame.
const LOWEST_PANE: u16 = 5;

const HELP: &str = "\
Tab, 1-9  choose a guest      i  type (Esc: back)
s         start it            t  stop it
r         restart it          v  inject a virtual SError
e         raise an error      q  quit
          (needs firmware)    ?  this help";

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, view: &View) {
    let rows = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [top, middle, bottom] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(states(model, view), top);
    let (guests, events) = split(middle);
    draw_guests(frame, guests, model, view);
    draw_events(frame, events, model);
    frame.render_widget(foot(model, view, bottom.width), bottom);
    if view.mode == Mode::Help {
        draw_help(frame);
    }
}

fn split(area: Rect) -> (Rect, Rect) {
    let parts = if area.width >= WIDE {
        let sides = [Constraint::Percentage(58), Constraint::Percentage(42)];
        Layout::horizontal(sides).areas::<2>(area)
    } else {
        let sides = [Constraint::Percentage(62), Constraint::Percentage(38)];
        Layout::vertical(sides).areas::<2>(area)
    };
    (parts[0], parts[1])
}

fn color(state: &str) -> Color {
    match state {
        "running" => Color::Green,
        "stopped" | "killed" => Color::Red,
        _ => Color::Yellow,
    }
}

/// The partitions in a line, the one in focus first to be seen.
fn states(model: &Model, view: &View) -> Paragraph<'static> {
    let mut spans = Vec::new();
    for (index, one) in model.partitions.iter().enumerate() {
        let mut style = Style::new();
        if index == view.focus {
            style = style.add_modifier(Modifier::REVERSED);
        }
        spans.push(Span::styled(format!(" {} {} ", index + 1, one.name), style));
        spans.push(Span::styled(
            format!("{} ", one.state),
            Style::new().fg(color(&one.state)),
        ));
        if one.restarts > 0 {
            spans.push(Span::raw(format!("({}x) ", one.restarts)));
        }
    }
    if spans.is_empty() {
        spans.push(Span::raw(" no partition yet"));
    }
    Paragraph::new(Line::from(spans))
}

fn draw_guests(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &View) {
    let count = model.partitions.len();
    if count == 0 {
        frame.render_widget(Block::bordered().title(" guests "), area);
        return;
    }
    // As many as there is room for, the one in focus among them.
    let room = usize::from((area.height / LOWEST_PANE).max(1)).min(count);
    let first = view.focus.saturating_sub(room - 1).min(count - room);
    let sizes = (first..first + room).map(|index| match index == view.focus {
        true => Constraint::Fill(2),
        false => Constraint::Fill(1),
    });
    let areas = Layout::vertical(sizes).split(area);
    for (offset, area) in areas.iter().enumerate() {
        let index = first + offset;
        if let Some(one) = model.partitions.get(index) {
            draw_guest(frame, *area, one, (index == view.focus).then_some(view));
        }
    }
}

fn draw_guest(frame: &mut Frame<'_>, area: Rect, one: &Partition, focused: Option<&View>) {
    let typing = focused.is_some_and(|view| view.mode == Mode::Typing);
    let mut title = format!(" {} ", one.name);
    if typing {
        title += "- typing, Esc ends ";
    } else if !one.reason.is_empty() {
        title += &format!("- {}: {} ", one.state, one.reason);
    }
    let mut block = Block::bordered().title(title);
    if focused.is_some() {
        let color = if typing { Color::Yellow } else { Color::Cyan };
        block = block.border_style(Style::new().fg(color));
    }
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let rows = usize::from(inner.height);
    let mut lines: Vec<String> = one.lines.iter().rev().take(rows).rev().cloned().collect();
    let unfinished = one.line.unfinished();
    if typing || !unfinished.is_empty() {
        lines.push(unfinished.clone());
    }
    let skipped = lines.len().saturating_sub(rows);
    let shown: Vec<Line<'_>> = lines.into_iter().skip(skipped).map(Line::from).collect();
    if typing && inner.height > 0 && inner.width > 0 {
        let row = u16::try_from(shown.len().saturating_sub(1)).unwrap_or(0);
        let column = u16::try_from(unfinished.chars().count()).unwrap_or(u16::MAX);
        let column = column.min(inner.width - 1);
        frame.set_cursor_position((inner.x + column, inner.y + row));
    }
    frame.render_widget(Paragraph::new(Text::from(shown)), inner);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let block = Block::bordered().title(" events ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let (width, rows) = (usize::from(inner.width).max(1), usize::from(inner.height));
    // The newest at the bottom, whole: from behind, as many as fit when they are wrapped.
    let mut shown = Vec::new();
    let mut used = 0;
    for told in model.events.iter().rev() {
        let style = match told.weight {
            Weight::Note => Style::new(),
            Weight::Warning => Style::new().fg(Color::Yellow),
            Weight::Loss => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        };
        let line = format!("{} {}", told.name, told.words);
        for part in wrapped(&line, width).into_iter().rev() {
            if used == rows {
                break;
            }
            used += 1;
            shown.push(Line::styled(part, style));
        }
    }
    shown.reverse();
    frame.render_widget(Paragraph::new(Text::from(shown)), inner);
}

/// Breaks a line at spaces; what follows the first is indented.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 2 && last + 1 + word.chars().count() > width {
            lines.push(format!("  {word}"));
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn foot(model: &Model, view: &View, width: u16) -> Paragraph<'static> {
    if let Mode::Prompt(line) = &view.mode {
        let room = usize::from(width).saturating_sub(3);
        let skipped = line.chars().count().saturating_sub(room);
        let end: String = line.chars().skip(skipped).collect();
        return Paragraph::new(format!("> {end}\u{2588}")).style(Style::new().fg(Color::Yellow));
    }
    let text = match &model.halted {
        Some(why) => format!(" halted: {why}"),
        None => format!(" {}", view.status),
    };
    let style = if model.halted.is_some() {
        Style::new().fg(Color::Red)
    } else {
        Style::new().add_modifier(Modifier::DIM)
    };
    Paragraph::new(text).style(style)
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (area.width.min(58), area.height.min(7));
    let place = Rect::new(
        (area.width - width) / 2,
        (area.height - height) / 2,
        width,
        height,
    );
    let help = Paragraph::new(HELP).wrap(Wrap { trim: false });
    frame.render_widget(Clear, place);
    frame.render_widget(help.block(Block::bordered().title(" keys ")), place);
}
