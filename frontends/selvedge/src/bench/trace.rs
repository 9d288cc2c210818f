//! A timeline of a measurement: stages of the host and dispatches of the device.

use serde_json::{Value, json};

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What it was.
    pub name: String,
    /// On the device; otherwise on the host.
    pub device: bool,
    /// Milliseconds from the start of the process.
    pub start_ms: f64,
    /// Milliseconds.
    pub ms: f64,
    /// What else is known: kernel, floating-point operations …
    pub facts: Value,
}

/// Spans, in any order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Timeline {
    /// All of them.
    pub spans: Vec<Span>,
}

impl Timeline {
    /// Adds a stage of the host.
    pub fn host(&mut self, name: &str, start_ms: f64, ms: f64) {
        self.spans.push(Span { name: name.to_string(), device: false, start_ms, ms, facts: json!({}) });
    }
    /// The trace-event format that Perfetto and Chrome open: complete events in microseconds, one thread for the host and
    /// one for the device.
    pub fn to_json(&self) -> Value {
        let name = |kind: &str, tid: usize, name: &str| json!({ "name": kind, "ph": "M", "pid": 1, "tid": tid, "args": { "name": name } });
        let mut events =
            vec![name("process_name", 1, "selvedge"), name("thread_name", 1, "host"), name("thread_name", 2, "device")];
        events.extend(self.spans.iter().map(|s| {
            let (tid, category) = if s.device { (2, "device") } else { (1, "host") };
            json!({
                "name": s.name, "cat": category, "ph": "X", "pid": 1, "tid": tid,
                "ts": s.start_ms * 1e3, "dur": s.ms * 1e3, "args": s.facts,
            })
        }));
        json!({ "traceEvents": events, "displayTimeUnit": "ms" })
    }
    /// A picture of it: two bands with one bar a span, names as tooltips.
    pub fn to_svg(&self) -> String {
        let end = self.spans.iter().map(|s| s.start_ms + s.ms).fold(1.0, f64::max);
        let (width, left) = (1200.0, 60.0);
        let x = |ms: f64| left + ms / end * (width - left);
        let mut body = String::new();
        for (y, name) in [(30, "host"), (70, "device")] {
            body += &format!("<text x=\"4\" y=\"{}\">{name}</text>\n", y + 16);
        }
        for tick in 0..=10 {
            let ms = end * tick as f64 / 10.0;
            body += &format!("<text x=\"{:.1}\" y=\"112\" text-anchor=\"end\">{ms:.0} ms</text>\n", x(ms));
        }
        for s in &self.spans {
            // A name has one colour, whatever the order.
            let hue = s.name.bytes().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add(b as u32)) % 360;
            let (y, name) = (if s.device { 70 } else { 30 }, escape(&s.name));
            let wide = (x(s.start_ms + s.ms) - x(s.start_ms)).max(0.2);
            body += &format!(
                "<rect x=\"{:.2}\" y=\"{y}\" width=\"{wide:.2}\" height=\"24\" fill=\"hsl({hue},60%,60%)\">\
                 <title>{name}: {:.3} ms</title></rect>\n",
                x(s.start_ms),
                s.ms
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 120\" font-family=\"sans-serif\" font-size=\"11\">\n\
             {body}</svg>\n"
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_every_span_once() {
        let mut timeline = Timeline::default();
        timeline.host("passes", 1.0, 2.0);
        let facts = json!({ "flops": 8 });
        timeline.spans.push(Span { name: "%1 a<b".to_string(), device: true, start_ms: 3.0, ms: 0.5, facts });
        let json = timeline.to_json();
        let events = json["traceEvents"].as_array().expect("events");
        let complete: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(complete.len(), 2);
        assert_eq!((&complete[1]["ts"], &complete[1]["dur"]), (&json!(3000.0), &json!(500.0)));
        assert_ne!(complete[0]["tid"], complete[1]["tid"]);
        let svg = timeline.to_svg();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("%1 a&lt;b: 0.500 ms"), "{svg}");
    }
}
