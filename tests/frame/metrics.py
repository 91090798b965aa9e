"""The OpenMetrics of a daemon on the stack."""
import socket

TIMEOUT_S = 60


def metrics_socket(stack, daemon):
    return str(stack.at.path(f"/run/postern/{daemon}.metrics.sock"))


def scrape(stack, daemon):
    """{sample with its labels: value}"""
    return scrape_socket(metrics_socket(stack, daemon))


def scrape_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    lines = text.partition("\r\n\r\n")[2].splitlines()
    if not lines or lines[-1] != "# EOF":
        raise AssertionError("the metrics are cut off")
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] != "#"}
