//! What is written where: the flow logs of the configuration, under what the command line says.
use std::{num::NonZeroU64, sync::Arc};

use flowlog_model::{
    field::{DEFAULT_FIELDS, EXTENDED_FIELDS, Field},
    flow_log::CaptureWindow,
    format::Format,
};

use crate::{
    config::{Destination, FlowLogConfig},
    sink::{Output, Rendering},
};

/// The form of records on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputForm {
    /// One JSON object a line, with all fields but the batch.
    Json,
    /// One line of fields separated by spaces.
    Text,
    /// A table for people.
    Table,
}

/// What the command line says over the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions {
    /// Write the records of all flow logs that go to no Log Service to standard output, in this form.
    pub form: Option<OutputForm>,
    /// Length of all windows.
    pub window_seconds: Option<NonZeroU64>,
}

/// The outputs of flow logs.
#[must_use]
pub fn outputs(flow_logs: &[FlowLogConfig], options: &OutputOptions) -> Vec<Arc<Output>> {
    flow_logs
        .iter()
        .map(|flow_log| Arc::new(output(flow_log, options)))
        .collect()
}

fn output(config: &FlowLogConfig, options: &OutputOptions) -> Output {
    let mut flow_log = config.flow_log.clone();
    if let Some(seconds) = options.window_seconds {
        flow_log.window = CaptureWindow::from_seconds(seconds);
    }
    // What a Log Service is to keep is not taken from it by somebody who looks on.
    let goes_to_service = matches!(config.destination, Destination::LogService(_));
    let (rendering, destination) = match options.form.filter(|_| !goes_to_service) {
        None => (
            Rendering::Lines(config.format.clone()),
            config.destination.clone(),
        ),
        Some(OutputForm::Json) => {
            // Whose batch a record is in matters to those who store it, and they name their fields themselves.
            let of_record = |field: &Field| *field != Field::BatchId;
            let fields: Vec<_> = DEFAULT_FIELDS
                .into_iter()
                .chain(EXTENDED_FIELDS.into_iter().filter(of_record))
                .collect();
            (Rendering::Lines(Format::json(&fields)), Destination::Stdout)
        }
        Some(OutputForm::Text) => (
            Rendering::Lines(Format::text(&DEFAULT_FIELDS)),
            Destination::Stdout,
        ),
        Some(OutputForm::Table) => (Rendering::Table, Destination::Stdout),
    };
    Output {
        flow_log,
        rendering,
        destination,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_goes_to_a_log_service_stays_with_it() {
        let flow_log = |name: &str, destination: &str| {
            format!(
                "[[flow-log]]\nname = '{name}'\nresource-type = 'VPC'\nresource-id = 'vpc-1'\ndestination = {{ {destination} }}\n"
            )
        };
        let text = format!(
            "inventory = 'inventory.toml'\n{}{}",
            flow_log("file", "type = 'file', path = '/tmp/a.log'"),
            flow_log(
                "service",
                "type = 'log-service', endpoint = 'http://127.0.0.1:8480', project = 'p-1', logstore = 's-1', access-key-file = '/k.json'"
            ),
        );
        let config = Config::parse(&text, "agent.toml").unwrap();
        let options = OutputOptions {
            form: Some(OutputForm::Table),
            window_seconds: NonZeroU64::new(5),
        };
        let outputs = outputs(&config.flow_logs, &options);
        assert_eq!(outputs[0].destination, Destination::Stdout);
        assert_eq!(outputs[1].destination, config.flow_logs[1].destination);
        for output in outputs {
            assert_eq!(output.flow_log.window.seconds(), 5);
        }
    }
}
