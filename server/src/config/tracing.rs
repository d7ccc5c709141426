//! Where traces go, and how many.

use super::settings::Settings;

/// All of them: whoever wants fewer says so.
const DEFAULT_SHARE: u64 = 1_000_000;

/// Traces are made and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TracingConfig {
    pub collector: Collector,
    /// Of a million traces that no caller decides on.
    pub per_million: u64,
}

/// What takes OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collector {
    /// Host and port.
    pub authority: String,
    pub path: String,
}

/// OTLP's, over HTTP.
const PORT: u16 = 4318;
/// Below an endpoint that is the base of all signals.
const PATH: &str = "/v1/traces";

impl std::str::FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is not http://HOST[:PORT][/PATH]".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.filter(|_| uri.query().is_none()).ok_or_else(wrong)?;
        let port = uri.port_u16().unwrap_or(PORT);
        let path = uri.path().trim_end_matches('/');
        let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
        Ok(Self { authority: format!("{}:{port}", authority.host()), path })
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

pub(super) fn tracing(from: &mut Settings) -> Option<TracingConfig> {
    let per_million = from.integer("tracing.samples_per_million", DEFAULT_SHARE, 0..=1_000_000);
    from.parsed("tracing.endpoint").map(|collector| TracingConfig { collector, per_million })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_named_by_their_base_or_whole() {
        let parse = |text: &str| text.parse::<Collector>().map(|collector| collector.to_string());
        assert_eq!(parse("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(parse("http://otel/").unwrap(), "http://otel:4318/v1/traces");
        assert_eq!(parse("http://[::1]:9/v1/traces").unwrap(), "http://[::1]:9/v1/traces");
        assert_eq!(parse("http://a:1/base").unwrap(), "http://a:1/base/v1/traces");
        for wrong in ["https://a", "a:4318", "http://", "http://a?b", "/v1"] {
            parse(wrong).unwrap_err();
        }
    }
}
