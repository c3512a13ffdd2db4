//! Records as a table for people: a window at a time, the heaviest flows first.
use std::{fmt::Write as _, io, net::IpAddr};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use flowlog_model::{
    flow_log::FlowLog,
    record::{Action, Direction, FlowTuple, LogStatus, Record},
};

use super::SinkWriter;
use crate::{route, store::ClosedWindow};

/// Rows that are shown of a window; the others are added up in one line.
const MAX_ROWS: usize = 40;

/// Columns that hold numbers.
const NUMBERS: [usize; 2] = [5, 6];

struct Row {
    bytes: u64,
    packets: u64,
    eni: String,
    cells: [String; 9],
}

/// Writes the window's records as a table; gives their number.
pub(super) fn write(
    window: &ClosedWindow,
    flow_log: &FlowLog,
    writer: &mut SinkWriter,
) -> io::Result<u64> {
    let mut rows = Vec::new();
    let mut records = 0;
    let mut rest = (0_u64, 0_u64, 0_u64);
    route::records(window, flow_log, |record| {
        records += 1;
        rows.push(row(record));
        // What will not be shown need not be kept.
        if rows.len() > MAX_ROWS * 4 {
            cut(&mut rows, &mut rest);
        }
    });
    cut(&mut rows, &mut rest);
    rows.sort_by(|a, b| a.eni.cmp(&b.eni).then(b.bytes.cmp(&a.bytes)));
    writer.write_lines(render(window, flow_log, &rows, records, rest).as_bytes())?;
    writer.flush()?;
    Ok(records)
}

/// Keeps the heaviest.
fn cut(rows: &mut Vec<Row>, rest: &mut (u64, u64, u64)) {
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    for row in rows.drain(MAX_ROWS.min(rows.len())..) {
        rest.0 += 1;
        rest.1 += row.packets;
        rest.2 += row.bytes;
    }
}

fn render(
    window: &ClosedWindow,
    flow_log: &FlowLog,
    rows: &[Row],
    records: u64,
    rest: (u64, u64, u64),
) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "ENI",
            "DIR",
            "PROTO",
            "SOURCE",
            "DESTINATION",
            "PACKETS",
            "BYTES",
            "FLAGS",
            "ACTION",
        ]);
    for row in rows {
        table.add_row(&row.cells);
    }
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let (start, end) = (
        clock_time(window.window.start),
        clock_time(window.window.end),
    );
    let mut text = format!(
        "\n── {} · {start}–{end} UTC · {records} {} ──\n",
        flow_log.name.as_str(),
        if records == 1 { "record" } else { "records" }
    );
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let (flows, packets, bytes) = rest;
    if flows > 0 {
        let _ = writeln!(
            text,
            " … and {flows} more with {packets} packets, {bytes} bytes"
        );
    }
    text
}

fn row(record: &Record<'_>) -> Row {
    let number =
        |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let end = |end: Option<String>| end.unwrap_or_else(|| "-".to_owned());
    let flow = record.flow.as_ref();
    Row {
        bytes: record.bytes.unwrap_or(0),
        packets: record.packets.unwrap_or(0),
        eni: record.eni.eni_id.clone(),
        cells: [
            record.eni.eni_id.clone(),
            match record.direction {
                Some(Direction::In) => "in",
                Some(Direction::Out) => "out",
                None => "-",
            }
            .to_owned(),
            end(flow.map(|flow| protocol(flow.protocol))),
            end(flow.map(|flow| endpoint(flow.src_addr, flow.src_port, flow))),
            end(flow.map(|flow| endpoint(flow.dst_addr, flow.dst_port, flow))),
            number(record.packets),
            number(record.bytes),
            end(record.tcp_flags.map(flags)),
            match (record.log_status, record.action) {
                (LogStatus::NoData, _) => "NODATA",
                (LogStatus::SkipData, _) => "SKIPDATA",
                (LogStatus::Ok, Some(Action::Reject)) => "REJECT",
                (LogStatus::Ok, _) => "ACCEPT",
            }
            .to_owned(),
        ],
    }
}

fn endpoint(address: IpAddr, port: u16, flow: &FlowTuple) -> String {
    match (flow.src_port, flow.dst_port, address) {
        (0, 0, address) => address.to_string(),
        (_, _, IpAddr::V4(address)) => format!("{address}:{port}"),
        (_, _, IpAddr::V6(address)) => format!("[{address}]:{port}"),
    }
}

/// Names that people know; the others are numbers as in IANA's registry.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => return number.to_string(),
    }
    .to_owned()
}

fn flags(flags: u8) -> String {
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'C'];
    LETTERS
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, letter)| *letter)
        .collect()
}

/// `HH:MM:SS` of a Unix time.
fn clock_time(unix_seconds: u64) -> String {
    let day = unix_seconds % 86_400;
    format!("{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60)
}
