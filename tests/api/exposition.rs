//! A strict reader of the text form of OpenMetrics 1.0: whatever Prometheus might read otherwise than it was meant is an error.

use std::collections::{BTreeMap, BTreeSet};

/// One metric with its samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line with a number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Every metric by its name.
pub(crate) type Exposition = BTreeMap<String, Metric>;

/// Reads all of it, or says which line is wrong.
pub(crate) fn parse(text: &str) -> Result<Exposition, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("does not end with # EOF and a new line")?;
    let mut all = Exposition::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in body.lines() {
        let at = |why: &str| format!("{line}: {why}");
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').ok_or_else(|| at("no name"))?;
            let (name, said) = rest.split_once(' ').ok_or_else(|| at("says nothing"))?;
            if name != current {
                if all.contains_key(name) || !is_name(name) {
                    return Err(at("a metric that stands twice, or no name"));
                }
                current = name.to_owned();
                all.insert(current.clone(), Metric::default());
            }
            describe(all.get_mut(&current).ok_or_else(|| at("no metric"))?, name, word, said)
                .map_err(|why| at(&why))?;
        } else {
            let sample = sample(line).map_err(|why| at(&why))?;
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(at("stands twice"));
            }
            let metric = all.get_mut(&current).ok_or_else(|| at("a number before its metric"))?;
            check_name(&current, metric, &sample).map_err(|why| at(&why))?;
            metric.samples.push(sample);
        }
    }
    for (name, metric) in &all {
        check_whole(metric).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(all)
}

fn describe(metric: &mut Metric, name: &str, word: &str, said: &str) -> Result<(), String> {
    if !metric.samples.is_empty() {
        return Err("described after its numbers".into());
    }
    let slot = match word {
        "HELP" => &mut metric.help,
        "TYPE" if ["counter", "gauge", "histogram", "info"].contains(&said) => &mut metric.kind,
        "UNIT" if name.ends_with(&format!("_{said}")) && metric.unit.is_none() => {
            metric.unit = Some(said.to_owned());
            return Ok(());
        }
        other => return Err(format!("{other:?} is not known here, or does not fit")),
    };
    if !slot.is_empty() {
        return Err("said twice".into());
    }
    said.clone_into(slot);
    Ok(())
}

fn sample(line: &str) -> Result<Sample, String> {
    let name: String = line.chars().take_while(|it| *it != '{' && *it != ' ').collect();
    if !is_name(&name) {
        return Err("no name".into());
    }
    let rest = &line[name.len()..];
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let number = rest.strip_prefix(' ').ok_or("no space before the number")?;
    let value = match number {
        "+Inf" => f64::INFINITY,
        text if text.starts_with(|it: char| it.is_ascii_digit() || it == '-') => {
            text.parse().map_err(|error| format!("{error}"))?
        }
        _ => return Err("no number".into()),
    };
    Ok(Sample { name, labels, value })
}

/// Up to the closing brace; gives what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut all = BTreeMap::new();
    loop {
        let (name, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
        let mut value = String::new();
        let mut letters = behind.char_indices();
        let end = loop {
            match letters.next().ok_or("a value that does not end")? {
                (_, '\\') => match letters.next() {
                    Some((_, '\\')) => value.push('\\'),
                    Some((_, '"')) => value.push('"'),
                    Some((_, 'n')) => value.push('\n'),
                    _ => return Err("an escape that is none".into()),
                },
                (at, '"') => break at,
                (_, letter) => value.push(letter),
            }
        };
        if !is_name(name) || name.starts_with("__") || all.insert(name.to_owned(), value).is_some() {
            return Err(format!("{name:?} is no label, or stands twice"));
        }
        rest = &behind[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.strip_prefix('}').map(|rest| (all, rest)).ok_or("no closing brace".into()),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_lowercase())
        && text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
}

fn check_name(metric_name: &str, metric: &Metric, sample: &Sample) -> Result<(), String> {
    let suffixes: &[&str] = match metric.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_count", "_sum"],
        "info" => &["_info"],
        _ => return Err("a number before the type".into()),
    };
    if !suffixes.iter().any(|suffix| sample.name == format!("{metric_name}{suffix}")) {
        return Err(format!("is no {} of {metric_name}", metric.kind));
    }
    let rises = metric.kind != "gauge";
    if rises && sample.value < 0.0 {
        return Err("falls below nothing".into());
    }
    Ok(())
}

fn check_whole(metric: &Metric) -> Result<(), String> {
    if metric.help.is_empty() || metric.kind.is_empty() {
        return Err("says not what it is".into());
    }
    if metric.kind != "histogram" {
        return Ok(());
    }
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    let of_kind = |end: &'static str| metric.samples.iter().filter(move |it| it.name.ends_with(end));
    for bucket in of_kind("_bucket") {
        let mut labels = bucket.labels.clone();
        let bound = labels.remove("le").ok_or("a bucket without a bound")?;
        let bound =
            if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_none| "a bound that is none")? };
        series.entry(labels).or_default().push((bound, bucket.value));
    }
    for (labels, buckets) in &series {
        let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let count = of_kind("_count").find(|it| it.labels == *labels).map(|it| it.value);
        let last = buckets.last().filter(|it| it.0 == f64::INFINITY).map(|it| it.1);
        if !rises || count.is_none() || count != last || !of_kind("_sum").any(|it| it.labels == *labels) {
            return Err(format!("its buckets do not add up: {labels:?} {buckets:?}"));
        }
    }
    Ok(())
}

/// It would read nothing wrong, or everything.
#[test]
fn what_is_not_openmetrics_is_refused() {
    let good =
        "# HELP a_seconds x.\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds{b=\"\\\"\"} 1.5\n# EOF\n";
    let read = parse(good).unwrap();
    assert_eq!(read["a_seconds"].samples[0].labels["b"], "\"");
    for (part, bent) in [
        ("# EOF\n", ""),
        ("# TYPE a_seconds gauge\n", ""),
        ("# TYPE a_seconds gauge\n", "# TYPE a_seconds gouge\n"),
        ("# HELP a_seconds x.\n", ""),
        ("UNIT a_seconds seconds", "UNIT a_seconds bytes"),
        ("a_seconds{", "b_seconds{"),
        ("1.5\n", "1.5\na_seconds{b=\"\\\"\"} 1\n"),
        ("1.5\n", "one\n"),
        ("1.5\n", "1.5\n# HELP a_seconds again\n"),
        ("{b=\"\\\"\"}", "{b=\"\\x\"}"),
        ("{b=\"\\\"\"}", "{b=\"\",b=\"\"}"),
        ("{b=\"\\\"\"}", "{b=\""),
        ("gauge", "counter"),
    ] {
        assert!(good.contains(part), "{part}");
        assert!(parse(&good.replacen(part, bent, 1)).is_err(), "{part:?} as {bent:?}");
    }
    let buckets = |last: &str, inf: u8| {
        format!(
            "# HELP h x.\n# TYPE h histogram\nh_sum 1\nh_count 2\nh_bucket{{le=\"0.1\"}} 1\nh_bucket{{le=\"{last}\"}} {inf}\n# EOF\n"
        )
    };
    assert!(parse(&buckets("+Inf", 2)).is_ok());
    assert!(
        [("0.5", 2), ("+Inf", 1), ("+Inf", 3), ("0.05", 2)]
            .iter()
            .all(|(last, inf)| parse(&buckets(last, *inf)).is_err())
    );
}
