//! The log: one line an event, each with the fields of all the spans that it happened in.
//!
//! Lines go to **standard error**, of every command: standard output is for what a command was asked for. The
//! kubelet keeps both, so nothing is lost in a pod.
//!
//! # Shape
//! `json`: one flat object a line. `timestamp`, `level`, `message`, `target`, then the fields of the spans from
//! the outermost inwards, then the event's own; of two with the same name the innermost stands. So a line about
//! a tenant has `tenant.name` beside `message`, wherever in the code it came from.
//! `text`: tracing-subscriber's own, for people at a terminal.

use std::{error::Error as StdError, fmt, io};

use clap::ValueEnum;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::error::chain;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line, for collectors.
    #[default]
    Json,
    /// For people.
    Text,
}

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error("failed to read the log filter {filter:?}")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another log was started before.
    #[error("failed to start the log")]
    Start(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process.
///
/// `filter` is in the language of `RUST_LOG`, e.g. `info,kube=warn,valv::tenant=debug`.
///
/// # Errors
/// If `filter` does not parse, or a log was started before.
pub fn start(format: Format, filter: &str) -> Result<(), Error> {
    let filter =
        EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        Format::Json => registry.with(lines.fmt_fields(JsonFields::new()).event_format(FlatJson)).try_init(),
        Format::Text => registry.with(lines).try_init(),
    }
    .map_err(Error::Start)
}

/// The `json` format.
struct FlatJson;

impl<S, N> FormatEvent<S, N> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());

        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str());
            // `JsonFields` writes an object; were it anything else, the line is worth more without it than not
            // written at all.
            if let Some(Value::Object(fields)) = fields.and_then(|text| serde_json::from_str(text).ok()) {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));

        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// Collects the fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl tracing::field::Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn StdError + 'static)) {
        self.insert(field, chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span, subscriber::DefaultGuard};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// The lines so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What this thread logs in the `json` format, as long as the guard is there.
    pub(crate) fn capture() -> (Captured, DefaultGuard) {
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber =
            tracing_subscriber::registry().with(lines.fmt_fields(JsonFields::new()).event_format(FlatJson));
        (captured, tracing::subscriber::set_default(subscriber))
    }

    fn lines_of(events: impl FnOnce()) -> Vec<Value> {
        let (captured, logging) = capture();
        events();
        drop(logging);
        captured.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_all_its_spans_beside_its_own() {
        let lines = lines_of(|| {
            let _outer = info_span!("reconcile", tenant.name = "ada", tenant.generation = 3).entered();
            let _inner = info_span!("apply", object.name = "ConfigMap/ada").entered();
            info!(size_bytes = 5, changed = true, "applied object");
        });

        let line = &lines[0];
        assert_eq!(line["message"], "applied object");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["tenant.name"], "ada");
        assert_eq!(line["tenant.generation"], 3);
        assert_eq!(line["object.name"], "ConfigMap/ada");
        assert_eq!(line["size_bytes"], 5);
        assert_eq!(line["changed"], true);
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_field_that_a_span_learns_later_is_in_the_lines_after() {
        let lines = lines_of(|| {
            let span = info_span!("reconcile", tenant.name = "ada", outcome = tracing::field::Empty);
            let _entered = span.enter();
            info!("before");
            span.record("outcome", "unchanged");
            info!("after");
        });

        assert_eq!(lines[0].get("outcome"), None);
        assert_eq!(lines[1]["outcome"], "unchanged");
        assert_eq!(lines[1]["tenant.name"], "ada");
    }

    #[test]
    fn of_two_fields_with_the_same_name_the_innermost_stands() {
        let lines = lines_of(|| {
            let _outer = info_span!("outer", object.name = "outer").entered();
            info!(object.name = "inner", "said");
        });

        assert_eq!(lines[0]["object.name"], "inner");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused_by_name() {
        let error = start(Format::Json, "valv=loud").unwrap_err();

        assert!(
            chain(&error).starts_with("failed to read the log filter \"valv=loud\": "),
            "{}",
            chain(&error)
        );
    }
}
