//! Facts about work that goes on, as rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fact::{Row, put, request_key};
use super::{Change, Error};
use crate::domain::time::Wall;
use crate::engine::record::{Deed, OpenRun, Record};

pub(super) const DEED: &str = "deed";
pub(super) const RUN: &str = "run";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeedBody {
    origin: String,
    verified: bool,
    command: String,
    at_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunBody {
    agent: String,
    instance: String,
    payload: String,
    streamed: bool,
    actor: String,
    at_ns: u64,
}

pub(super) fn put_deed(deed: &Deed) -> Result<Change, Error> {
    let body = DeedBody {
        origin: deed.origin.to_string(),
        verified: deed.is_verified,
        command: deed.command.to_string(),
        at_ns: deed.at.0,
    };
    put(DEED, request_key(&deed.key), &body)
}

pub(super) fn put_run(run: &OpenRun) -> Result<Change, Error> {
    let body = RunBody {
        agent: run.agent.to_string(),
        instance: run.instance.to_string(),
        payload: run.payload.clone(),
        streamed: run.is_streamed,
        actor: run.actor.to_string(),
        at_ns: run.at.0,
    };
    put(RUN, run.run.to_string(), &body)
}

impl Row<'_> {
    pub(super) fn deed(&self) -> Result<Record, Error> {
        let body: DeedBody = self.parse()?;
        Ok(Record::Deed(Deed {
            key: self.request_key()?,
            origin: self.field("origin", &body.origin)?,
            is_verified: body.verified,
            command: self.field("command", &body.command)?,
            at: Wall(body.at_ns),
        }))
    }

    pub(super) fn run(&self) -> Result<Record, Error> {
        let body: RunBody = self.parse()?;
        Ok(Record::Run(Arc::new(OpenRun {
            run: self.field("run", self.key)?,
            agent: self.field("agent", &body.agent)?,
            instance: self.field("instance", &body.instance)?,
            payload: body.payload,
            is_streamed: body.streamed,
            actor: self.field("actor", &body.actor)?,
            at: Wall(body.at_ns),
        })))
    }
}
