"""The example service, over loopback: predictions, errors, many connections, a new model."""

import http.client
import importlib
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import lmmfast as lf

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

SERVICE = Path(__file__).parents[2] / "examples" / "service" / "service.py"
SLEEP = lf.datasets.sleepstudy()

pytestmark = pytest.mark.skipif(not SERVICE.exists(), reason="an sdist without examples")


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    status, contents = answer.status, json.loads(answer.read())
    connection.close()
    return status, contents


@pytest.fixture(scope="module")
def service():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SERVICE.parent))
        return importlib.import_module("service")


@pytest.fixture
def served(service, tmp_path):
    """Port of a running service, and the file that it serves."""
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", SLEEP)
    fit.save(tmp_path / "m.lmm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = service.create(str(tmp_path / "m.lmm"))
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until and thread.is_alive()
        time.sleep(0.01)
    yield port, tmp_path / "m.lmm", fit
    server.should_exit = True
    thread.join(30)


def rows_of(frame):
    return [{"Subject": row.Subject, "Days": row.Days} for row in frame.itertuples()]


def test_predictions_to_the_bit(served):
    port, _, fit = served
    expected = fit.predict(SLEEP, level="conditional").to_list()
    for n in (1, 5, 180):
        status, answer = ask(port, "POST", "/predict", {"rows": rows_of(SLEEP[:n])})
        assert (status, answer["predictions"]) == (200, expected[:n])
    status, answer = ask(port, "POST", "/predict", {"rows": [{"Subject": "new", "Days": 10}]})
    assert answer["predictions"] == fit.predict({"Days": [10]}).tolist()
    status, answer = ask(port, "POST", "/predict", {"rows": [{"Subject": "S308", "Days": None}]})
    assert (status, answer["predictions"]) == (200, [None])
    assert ask(port, "POST", "/predict", {"rows": []})[1]["predictions"] == []


def test_what_it_refuses(served):
    port, _, _ = served
    for rows, why in (
        ([{"Subject": "S308"}], "no column 'Days'"),
        ([{"Subject": 308, "Days": 1}], "were text in the fit"),
        ([{"Subject": "S308", "Days": "ten"}], "'Days' was numbers in the fit"),
    ):
        status, answer = ask(port, "POST", "/predict", {"rows": rows})
        assert status == 422 and why in answer["detail"]
        status, answer = ask(port, "POST", "/predict", {"rows": rows * 30})
        assert status == 422 and why in answer["detail"]
    assert ask(port, "POST", "/predict", {"lines": []})[0] == 422


def test_many_connections_while_the_model_is_replaced(served):
    """Each answer is that of one fit as a whole."""
    port, path, fit = served
    other = lf.lmm("Reaction ~ Days + (1 | Subject)", SLEEP)
    rows = rows_of(SLEEP[::9])
    expected = [one.predict(SLEEP[::9], level="conditional").to_list() for one in (fit, other)]

    def ask_often(_):
        found = []
        for _ in range(25):
            status, answer = ask(port, "POST", "/predict", {"rows": rows})
            assert status == 200
            found.append(expected.index(answer["predictions"]))
        return found

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask_often, k) for k in range(8)]
        other.save(path)
        found = [one.result() for one in asked]
    assert all(np.all(np.diff(one) >= 0) for one in found)
    assert ask_often(0) == [1] * 25


def test_a_bad_file_leaves_the_fit_that_is_served(served):
    port, path, fit = served
    before = ask(port, "GET", "/model")[1]
    assert before["columns"] == ["Days", "Subject"]
    whole = path.read_bytes()
    path.with_name("bad").write_bytes(whole[:-100])
    os.replace(path.with_name("bad"), path)
    assert ask(port, "GET", "/model")[1] == before
    with pytest.warns(lf.ConvergenceWarning):
        lf.lmm("Reaction ~ Days + (Days | Subject)", SLEEP, max_iter=1).save(path)
    assert ask(port, "GET", "/model")[1] == before
    _, answer = ask(port, "POST", "/predict", {"rows": rows_of(SLEEP[:1])})
    assert answer["predictions"] == fit.predict(SLEEP[:1], level="conditional").to_list()


def test_the_application_is_that_of_a_file(service, tmp_path, monkeypatch):
    lf.lmm("Reaction ~ Days + (1 | Subject)", SLEEP).save(tmp_path / "m.lmm")
    monkeypatch.setenv("LMMFAST_MODEL", str(tmp_path / "m.lmm"))
    assert service.app.title == "lmmfast"
    with pytest.raises(AttributeError):
        service.nothing  # noqa: B018
