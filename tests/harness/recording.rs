//! What Prometheus would have scraped from a pontoon, minute by minute, and which alerts of `config/prometheus` fire at the end of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Pontoon;
use super::programs::promtool;

/// A page of metrics: the value of each series.
#[derive(Clone)]
pub struct Page {
    series: BTreeMap<String, f64>,
    counters: BTreeSet<String>,
    taken: f64,
}

/// Pages of one or more sidecars, one a minute.
#[derive(Default)]
pub struct Recording {
    minutes: usize,
    series: BTreeMap<String, Vec<Option<f64>>>,
}

impl Page {
    /// Scrapes a pontoon.
    pub fn of(pontoon: &Pontoon) -> Self {
        let (status, text) = pontoon.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let kind = |line: &str| line.strip_prefix("# TYPE ").map(str::to_owned);
        let kinds = text.lines().filter_map(kind);
        let counters = kinds.flat_map(|kind| match kind.split_once(' ') {
            Some((name, "counter")) => vec![name.to_owned()],
            Some((name, "histogram")) => {
                ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into()
            }
            _ => Vec::new(),
        });
        let counters = counters.collect();
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        let series = series.collect();
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        Self { series, counters, taken }
    }

    /// The series with this name whose labels contain `labels`.
    pub fn series(&self, name: &str, labels: &str) -> Vec<&str> {
        let named = |series: &&String| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        self.series
            .keys()
            .filter(named)
            .map(String::as_str)
            .filter(|series| series.contains(labels))
            .collect()
    }

    /// The value of a series.
    pub fn value(&self, series: &str) -> f64 {
        self.series[series]
    }

    /// Number of series with these labels.
    pub fn count(&self, has: impl Fn(&str) -> bool) -> usize {
        self.series.keys().filter(|series| has(series)).count()
    }
}

impl Recording {
    /// One sidecar whose page stays unchanged for `minutes`.
    pub fn of(page: &Page, minutes: usize) -> Self {
        Self::default().then(&[("a", page, page)], minutes)
    }

    /// Appends `minutes` minutes. In each, every counter grows by its difference between the sidecar's two pages; all else is as on the
    /// second page, and times that advanced between the pages go on advancing.
    pub fn then(mut self, sidecars: &[(&str, &Page, &Page)], minutes: usize) -> Self {
        for (instance, first, last) in sidecars {
            let up = format!("up{{instance=\"{instance}\",job=\"pontoon\"}}");
            self.add(up, vec![1.0; minutes]);
            for (series, value) in &last.series {
                let name = series.split('{').next().unwrap();
                let values = if last.counters.contains(name) {
                    let before = first.series.get(series).copied().unwrap_or_default();
                    (0..minutes).map(|n| before + (value - before) * n as f64).collect()
                } else if name.ends_with("_timestamp_seconds") && *value > 0.0 {
                    // promtool's clock begins at zero. What was renewed between the pages goes on being renewed.
                    let goes_on = first.series.get(series).is_some_and(|before| before < value);
                    let minute = |n| (self.minutes + if goes_on { n } else { 0 }) as f64 * 60.0;
                    (0..minutes).map(|n| value - last.taken + minute(n)).collect()
                } else {
                    vec![*value; minutes]
                };
                self.add(labelled(series, instance), values);
            }
        }
        self.minutes += minutes;
        self
    }

    /// Appends `minutes` minutes in which these sidecars are not scraped.
    pub fn then_down(mut self, instances: &[&str], minutes: usize) -> Self {
        for instance in instances {
            self.add(format!("up{{instance=\"{instance}\",job=\"pontoon\"}}"), vec![0.0; minutes]);
        }
        self.minutes += minutes;
        self
    }

    fn add(&mut self, series: String, values: Vec<f64>) {
        let recorded = self.series.entry(series).or_default();
        recorded.resize(self.minutes, None);
        recorded.extend(values.into_iter().map(Some));
    }

    /// Asserts that these alerts fire at the end, and no others.
    pub fn assert_firing(&self, alerts: &[&str]) {
        let mut text = String::from("evaluation_interval: 1m\nrule_files: [pontoon.rules.yml]\ntests:\n");
        text += "  - interval: 1m\n    input_series:\n";
        for (series, values) in &self.series {
            let mut values: Vec<_> = values
                .iter()
                .map(|value| match value {
                    None => "_".to_owned(),
                    Some(value) if value.is_nan() => "NaN".to_owned(),
                    Some(value) => value.to_string(),
                })
                .collect();
            values.resize(self.minutes, "_".to_owned());
            let series = series.replace('\'', "''");
            writeln!(text, "      - {{ series: '{series}', values: '{}' }}", values.join(" ")).unwrap();
        }
        let end = self.minutes - 1;
        text += "    promql_expr_test:\n      - expr: group by (alertname) (ALERTS{alertstate=\"firing\"})\n";
        let samples: Vec<_> = alerts
            .iter()
            .map(|alert| format!("{{ labels: '{{alertname=\"{alert}\"}}', value: 1 }}"))
            .collect();
        writeln!(text, "        eval_time: {end}m\n        exp_samples: [{}]", samples.join(", ")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.yml");
        fs::copy("config/prometheus/pontoon.rules.yml", directory.path().join("pontoon.rules.yml")).unwrap();
        fs::write(&file, &text).unwrap();
        let output = promtool().args(["test", "rules"]).arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }
}

fn labelled(series: &str, instance: &str) -> String {
    let own = format!("instance=\"{instance}\",job=\"pontoon\"");
    match series.strip_suffix('}') {
        Some(labelled) => format!("{labelled},{own}}}"),
        None => format!("{series}{{{own}}}"),
    }
}
