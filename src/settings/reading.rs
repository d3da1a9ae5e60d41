//! A text read as a whole: the settings, where its rules stand, what its own questions were answered, what deserves a word.

use std::ops::Range;

use crate::domain::policy::Side;
use crate::settings::concern::{self, Concern};
use crate::settings::place::Place;
use crate::settings::problem::{Faults, Problems};
use crate::settings::profile::Precondition;
use crate::settings::question::{self, Asked};
use crate::settings::raw::{self, At, Node};
use crate::settings::rule_text::ListForm;
use crate::settings::table::Table;
use crate::settings::valid::Settings;
use crate::settings::{build, environment, exposure, inert, profile, walk};

/// What becomes of a file whose own questions are not answered as it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// It is refused, as by a node that loads it.
    Refuse,
    /// It is read, and the answers are reported.
    Report,
}

/// Valid settings and what a person may want to know about their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The settings.
    pub settings: Settings,
    /// The answers to the file's own questions, in the order of the file.
    pub tests: Vec<Tested>,
    /// What the profile still lacks, in the order in which to repair it; empty when the node may answer.
    pub missing: Vec<Precondition>,
    /// What is no fault and still deserves a word.
    pub warnings: Vec<Warning>,
    outbound: List,
    inbound: List,
}

/// One question of the file with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The entry's path, such as `runtime.cloud.wan.test[0]`.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Which list was asked.
    pub side: Side,
    /// `actor action target`.
    pub question: String,
    /// What the file wants: `allow` or `deny`.
    pub expect: String,
    /// What the rules answer: `allow` or `deny`.
    pub got: &'static str,
    /// Which rule said so.
    pub why: String,
}

impl Tested {
    /// Whether the answer is the wanted one.
    pub fn is_met(&self) -> bool {
        self.expect == self.got
    }
}

/// Something that is no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
}

/// Where the rules of one list stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    form: ListForm,
    places: Vec<Place>,
}

impl Reading {
    /// Where a rule stands, by its index in the policy.
    pub fn place(&self, side: Side, index: usize) -> Option<&Place> {
        self.list(side).places.get(index)
    }

    /// How the list is written.
    pub fn form(&self, side: Side) -> ListForm {
        self.list(side).form
    }

    const fn list(&self, side: Side) -> &List {
        match side {
            Side::Inbound => &self.inbound,
            Side::Outbound => &self.outbound,
        }
    }
}

/// Which file a text is from.
pub(crate) struct File<'a> {
    /// Its name for people.
    pub(crate) name: &'a str,
    /// Why it is no place for a secret, if it is none.
    pub(crate) exposure: Option<String>,
}

/// The text with what is needed to say where something stands in it.
#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
    secrets: &'a [Range<usize>],
}

impl Source<'_> {
    fn place(self, at: &At) -> Place {
        Place::of(at, self.file, self.text, self.secrets)
    }
}

/// Reads a text as a whole, or says everything that is wrong with it.
pub(crate) fn read(
    text: &str,
    File { name: file, exposure }: File<'_>,
    default_name: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    unmet: Unmet,
) -> Result<Reading, Problems> {
    let mut faults = Faults::default();
    let mut root = match raw::read(text) {
        Ok(root) => root,
        Err(errors) => {
            errors.into_iter().for_each(|fault| faults.push(&At::Bytes(fault.at), "", fault.message));
            return Err(faults.into_problems(file, text));
        }
    };
    // First, because an override must not hide a fault of the file.
    walk::check(&root, &mut faults);
    let mut concerns: Vec<_> = exposure::of_settings(&root, exposure).into_iter().collect();
    concerns.extend(environment::apply(&mut root, environment, &mut faults));
    walk::check_required(&root, &mut faults);
    profile::check_tokens(&root, &mut faults);
    let settings = build::build(&root, default_name, &mut faults);
    // Questions to half-read rules would only add noise.
    let Some(settings) = settings.filter(|_| faults.is_empty()) else { return Err(faults.into_problems(file, text)) };
    let asked = ask(&root, &settings, unmet, &mut faults);
    if !faults.is_empty() {
        return Err(faults.into_problems(file, text));
    }
    let source = Source { file, text, secrets: faults.secrets() };
    let (outbound, inbound) = (list(&root, Side::Outbound, source), list(&root, Side::Inbound, source));
    let tests = asked.into_iter().map(|asked| tested(asked, source)).collect();
    concerns.extend(inert::concerns(&root));
    concerns.extend(concern::of_ageless_anchors(&root, &settings));
    let (refused, odd): (Vec<_>, Vec<_>) = concerns.into_iter().partition(|it| it.is_refused_in(settings.profile));
    let missing = profile::preconditions(&settings).into_iter().chain(refused.into_iter().map(Into::into)).collect();
    let warnings = odd.into_iter().map(|concern| warning(concern, source)).collect();
    let mut reading = Reading { settings, tests, missing, warnings, outbound, inbound };
    reading.warnings.extend(shadowed(&reading));
    Ok(reading)
}

fn ask(root: &Node, settings: &Settings, unmet: Unmet, faults: &mut Faults) -> Vec<Asked> {
    let domain = &settings.identity.trust_domain;
    let asked = question::ask_all(root, &settings.policy, settings.site(), domain, faults);
    if unmet == Unmet::Refuse {
        for (asked, fault) in asked.iter().filter_map(|asked| Some((asked, asked.fault()?))) {
            faults.push(&asked.expect_at, asked.shown.clone(), fault);
        }
    }
    asked
}

fn tested(asked: Asked, source: Source<'_>) -> Tested {
    let place = source.place(&asked.at);
    let Asked { shown: name, side, question, expect, got, why, at: _, expect_at: _ } = asked;
    Tested { name, place, side, question, expect, got, why }
}

fn warning(concern: Concern, source: Source<'_>) -> Warning {
    let Concern { setting, at, reason, is_about_protection: _ } = concern;
    Warning { place: source.place(&at), message: format!("{setting}: {reason}") }
}

fn list(root: &Node, side: Side, source: Source<'_>) -> List {
    let table = Table::of(root, "runtime.cloud.wan");
    let entries = table.list(side.list());
    let is_inline = |at: &At| match at {
        At::Bytes(range) => source.text.get(range.start..).is_some_and(|text| text.starts_with('{')),
        At::Variable(_) => false,
    };
    let is_written_inline = entries.first().map_or_else(|| table.has(side.list()), |entry| is_inline(&entry.at));
    let form = if is_written_inline { ListForm::Inline } else { ListForm::Tables };
    List { form, places: entries.iter().map(|entry| source.place(&entry.at)).collect() }
}

fn shadowed(reading: &Reading) -> Vec<Warning> {
    let policy = &reading.settings.policy;
    let warning = |shadowed: crate::domain::policy::Shadowed<'_>| {
        let index = policy.rules(shadowed.side).iter().position(|rule| std::ptr::eq(rule, shadowed.rule))?;
        let place = reading.place(shadowed.side, index)?.clone();
        let message =
            format!("the rule {} never decides: the deny rule {} covers it", shadowed.rule.id, shadowed.by.id);
        Some(Warning { place, message })
    };
    policy.shadowed().into_iter().filter_map(warning).collect()
}
