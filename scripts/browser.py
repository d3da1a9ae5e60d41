#!/usr/bin/env python3
"""One question to a headless browser, for scripts/runtime_cloud_browser_gate.sh.

    browser.py HOME is-refused URL CODE      it does not open the page, and says CODE
    browser.py HOME opens URL RUNTIME        it opens the page, which names the runtime, by TLS 1.3 and without a doubt
    browser.py HOME reads URL RUNTIME        a script of the page reads the fleet with the token, and in no other way
    browser.py HOME acts URL BODY            a script of the page asks for a plan and acts by it
    browser.py HOME follows URL RUNTIME      a script of the page follows the fleet's changes
    browser.py HOME is-silent URL            a script of the page can ask nobody
    browser.py HOME is-foreign URL TARGET    a script of the page gets nothing from the node TARGET, another origin

HOME is what the browser takes for the user's home folder: its store of certificates is in .pki/nssdb there.

Environment: TRUST_GATE_BROWSER the browser [chromium], TRUST_GATE_DEADLINE_S seconds for all of it [30], TRUST_GATE_TOKEN a file
with a bearer token, for those that use one.

The browser is spoken to in the DevTools protocol over a pipe, which nobody else can open. Exit codes: 0 it is so, 1 it is not.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

# What a browser must not be talked into here is trust: none of these touches certificates. Without the others it would ask its
# maker's servers for this and that, by ways that are none of this question's.
OPTIONS = [
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
]

# How long it may take to end when it is asked to.
END_MAX_S = 5

# Most bytes of one message of the browser: no page here is anywhere near.
MESSAGE_MAX = 16 * 1024 * 1024

# The highest of the two numbers by which a browser knows the pipe.
PIPE = 4


class Broken(Exception):
    """What was wanted is not so."""


class Browser:
    """One browser with one page, from its start to its end."""

    def __init__(self, home):
        self.deadline = time.monotonic() + float(os.environ.get("TRUST_GATE_DEADLINE_S", "30"))
        self.profile = tempfile.mkdtemp(prefix="profile-", dir=home)
        self.last = 0
        self.pending = b""
        self.events = []
        self.session = None
        self.process = self.start(home)

    def start(self, home):
        """The browser reads what it is asked from descriptor 3 and answers on 4. It ends with this program, however that ends."""
        asked, self.asking = os.pipe()
        self.answered, answering = os.pipe()
        asked, answering = out_of_the_way(asked), out_of_the_way(answering)
        # As in bound.sh: the bond first, and then a look whether the parent is still there.
        bond = ["setpriv", "--pdeathsig", "KILL", "bash", "-c", '[ "$PPID" = "$0" ] || exit 1; exec "$@"', str(os.getpid())]
        options = OPTIONS + ["--user-data-dir=" + self.profile]
        if os.geteuid() == 0:
            # Its sandbox is not to be had as root, which CI is.
            options.append("--no-sandbox")
        command = bond + [os.environ.get("TRUST_GATE_BROWSER", "chromium"), *options, "about:blank"]

        def numbered():
            os.dup2(asked, PIPE - 1)
            os.dup2(answering, PIPE)

        surroundings = {"HOME": home, "TMPDIR": home, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        with open(os.path.join(self.profile, "said"), "wb") as said:
            process = subprocess.Popen(
                command, env=surroundings, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=numbered,
                pass_fds=(PIPE - 1, PIPE),
            )
        os.close(asked)
        os.close(answering)
        return process

    def open_page(self):
        """An empty page of which everything is told."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for subject in ("Page", "Network", "Runtime"):
            self.ask(subject + ".enable")

    def ask(self, method, **parameters):
        """Has something done and gives what came of it. What else the browser tells meanwhile is kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        try:
            os.write(self.asking, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise Broken("the browser has ended") from None
        while True:
            told = self.told()
            if told.get("id") == self.last:
                if "error" in told:
                    raise Broken(f"{method}: {told['error']}")
                return told["result"]
            self.events.append(told)

    def event(self, is_it):
        """The first thing told that is this one, once it is told."""
        seen = 0
        while True:
            for told in self.events[seen:]:
                if is_it(told):
                    return told["params"]
            seen = len(self.events)
            self.events.append(self.told())

    def told(self):
        while b"\0" not in self.pending:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.answered], [], [], left)[0]:
                raise Broken("the browser says nothing in time")
            more = os.read(self.answered, 65536)
            if not more:
                raise Broken("the browser has ended")
            self.pending += more
            if len(self.pending) > MESSAGE_MAX:
                raise Broken(f"the browser says more than {MESSAGE_MAX} bytes at once")
        message, self.pending = self.pending.split(b"\0", 1)
        return json.loads(message)

    def go(self, url):
        """Opens an address as somebody would who types it. Gives why it did not, or nothing."""
        return self.ask("Page.navigate", url=url).get("errorText")

    def answer_from(self, url):
        """The answer to a request for this address, as the network part of the browser had it."""
        is_it = lambda told: told.get("method") == "Network.responseReceived" and told["params"]["response"]["url"] == url
        return self.event(is_it)["response"]

    def run(self, script, **values):
        """Runs the body of an asynchronous function in the page, with these values, and gives what it returns."""
        values = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
        # A page that has loaded by half has another origin still.
        loaded = "if (document.readyState !== 'complete') await new Promise((done) => addEventListener('load', done));\n"
        told = self.ask(
            "Runtime.evaluate", expression=f"(async () => {{ {values}{loaded}{script} }})()", awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in told:
            raise Broken(told["exceptionDetails"].get("exception", {}).get("description", "the script failed"))
        return told["result"].get("value")

    def end(self):
        """Ends what was started, by id."""
        os.close(self.asking)
        try:
            self.process.wait(END_MAX_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.answered)
        shutil.rmtree(self.profile, ignore_errors=True)


def out_of_the_way(end):
    """An end of a pipe under a number that no browser asks for."""
    other = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, PIPE + 1)
    os.close(end)
    return other


def want(is_so, got, what):
    if not is_so:
        raise Broken(f"wanted {what}, got {got!r}")


def token():
    with open(os.environ["TRUST_GATE_TOKEN"], encoding="ascii") as file:
        return file.read().strip()


def visit(browser, url):
    """Opens a page that opens."""
    why = browser.go(url)
    want(why is None, why, f"{url} opened")


def visit_freely(browser, url):
    """The same without the page's own word on what its scripts may do: they stand for the pages of an operator's view, which come
    from the same origin. What the browser thinks of certificates and origins is another matter, and stays."""
    browser.ask("Page.setBypassCSP", enabled=True)
    visit(browser, url)


# --- The questions ---------------------------------------------------------------------------------------------------


def is_refused(browser, url, code):
    got = browser.go(url)
    want(got == code, got, code)
    answers = [told for told in browser.events if told.get("method") == "Network.responseReceived"]
    want(not answers, answers, "no answer of the node")


def opens(browser, url, runtime):
    visit(browser, url)
    response = browser.answer_from(url + "/")
    want(response["status"] == 200, response["status"], "200")
    want(response["securityState"] == "secure", response["securityState"], "secure")
    details = response["securityDetails"]
    want(details["protocol"] == "TLS 1.3", details["protocol"], "TLS 1.3")
    page = browser.run("return [document.body.innerText, isSecureContext]")
    want(runtime in page[0].split("\n")[0].split(), page, f"a page that names {runtime}")
    want(page[1] is True, page, "a page that the browser takes for secure")


def reads(browser, url, runtime):
    visit_freely(browser, url)
    ask = """
        const options = given === null ? {} : { headers: { authorization: `Bearer ${given}` } };
        const answer = await fetch('/api/runtime-cloud/state', options);
        return [answer.status, await answer.json()];"""
    status, state = browser.run(ask, given=token())
    want(status == 200, (status, state), "200")
    site, name = runtime.split("/")
    # The own site's runtimes are shown by their bare names.
    known = [node["runtime_id"] for node in state["topology"]["nodes"]]
    want(name in known, known, f"{name} among the nodes of {site}")
    for given in (None, token()[:-1] + ("0" if token()[-1] != "0" else "1")):
        status, said = browser.run(ask, given=given)
        want(status == 401, (status, said), "401")


def acts(browser, url, body):
    visit_freely(browser, url)
    plan, done = browser.run(
        """
        const ask = async (step, body) => {
          const answer = await fetch(`/api/runtime-cloud/actions/${step}`, {
            method: 'POST',
            headers: { authorization: `Bearer ${given}`, 'content-type': 'application/json' },
            body: JSON.stringify(body),
          });
          return await answer.json();
        };
        const plan = await ask('preflight', body);
        return [plan, await ask('dispatch', { ...body, plan_hash: plan.plan_hash })];""",
        given=token(),
        body=json.loads(body),
    )
    want(plan.get("allowed") is True, plan, "a plan that is allowed")
    want(done.get("ok") is True, done, "an act that was carried out")


def follows(browser, url, runtime):
    visit_freely(browser, url)
    said = browser.run(
        """
        const end = new AbortController();
        const headers = { authorization: `Bearer ${given}`, accept: 'text/event-stream' };
        const answer = await fetch('/api/runtime-cloud/state/stream', { headers, signal: end.signal });
        if (answer.status !== 200) return [answer.status, ''];
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let heard = '';
        while (!heard.includes('\\n\\n')) heard += (await reader.read()).value;
        end.abort();
        return [answer.status, heard];""",
        given=token(),
    )
    want(said[0] == 200 and said[1].startswith(("id:", "event:", ":", "data:", "retry:")), said, "events")
    want(f'"{runtime.split("/")[1]}"' in said[1], said, f"a first event that tells of {runtime}")


def is_silent(browser, url):
    visit(browser, url)
    said = browser.run(
        """
        const violation = new Promise((done) => addEventListener('securitypolicyviolation', (it) => done(it.effectiveDirective)));
        const came = await fetch('/livez').then((answer) => answer.status, (error) => error.name);
        return came === 'TypeError' ? await violation : came;"""
    )
    want(said == "connect-src", said, "a request that the page's policy has stopped")


def is_foreign(browser, url, target):
    visit_freely(browser, url)
    # With a token the browser asks first whether it may, and without it asks and keeps the answer from the script.
    asked = browser.run(
        """
        const ask = (path, options) => fetch(target + path, options).then((answer) => answer.type, (error) => error.name);
        return [
          await ask('/api/runtime-cloud/state', { headers: { authorization: `Bearer ${given}` } }),
          await ask('/livez?simple', { mode: 'no-cors' }),
        ];""",
        given=token(),
        target=target,
    )
    want(asked == ["TypeError", "opaque"], asked, "nothing that a script can read")
    status = browser.answer_from(target + "/livez?simple")["status"]
    want(status == 403, status, "403, for a page of another origin")


QUESTIONS = {
    "is-refused": is_refused,
    "opens": opens,
    "reads": reads,
    "acts": acts,
    "follows": follows,
    "is-silent": is_silent,
    "is-foreign": is_foreign,
}


def main():
    home, question, *words = sys.argv[1:]
    browser = Browser(home)
    try:
        browser.open_page()
        QUESTIONS[question](browser, *words)
    except Broken as error:
        print(f"{question}: {error}", file=sys.stderr)
        return 1
    finally:
        browser.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
