#!/usr/bin/env python3
"""Writes vectors.json: REPORT_DATA of some claims, computed apart from the Go code."""
import hashlib
import json
import struct


def field(tag, value):
    return struct.pack(">HI", tag, len(value)) + value


def vector(name, cluster, node, job, het, restart, purpose, epoch, seed):
    def key(what, n):
        return hashlib.shake_256(f"{seed}/{what}".encode()).digest(n)

    c = {
        "cluster": cluster, "verifier_key": key("verifier", 32).hex(), "nonce": key("nonce", 32).hex(),
        "job": job, "het_offset": het, "restart": restart, "node": node,
        "wireguard": key("wireguard", 32).hex(), "ed25519": key("ed25519", 32).hex(),
        "hpke": key("hpke", 1216).hex(), "intent": bytes(32).hex(), "policy": key("policy", 32).hex(),
        "purpose": purpose, "epoch": epoch,
    }
    t = b"slurm-enclave/report-data/v1"
    t += field(1, cluster.encode()) + field(2, bytes.fromhex(c["verifier_key"]))
    t += field(3, bytes.fromhex(c["nonce"])) + field(4, struct.pack(">Q", job))
    t += field(5, struct.pack(">I", het)) + field(6, struct.pack(">I", restart))
    t += field(7, node.encode()) + field(8, bytes.fromhex(c["wireguard"]))
    t += field(9, bytes.fromhex(c["ed25519"])) + field(10, bytes.fromhex(c["hpke"]))
    t += field(11, bytes.fromhex(c["intent"])) + field(12, bytes.fromhex(c["policy"]))
    t += field(13, bytes([purpose])) + field(14, struct.pack(">I", epoch))
    return {"name": name, "claim": c, "transcript": t.hex(), "report_data": hashlib.sha512(t).hexdigest()}


print(json.dumps([
    vector("a job starts", "linux", "n1", 4711, 0, 0, 1, 0, "a"),
    vector("a job starts again after a requeue", "linux", "n1", 4711, 0, 2, 1, 0, "b"),
    vector("a job is renewed in epoch 3", "linux", "n2", 4711, 0, 0, 2, 3, "c"),
    vector("a node is enrolled", "linux", "node-017.cluster.example", 0, 0, 0, 3, 0, "d"),
    vector("numbers fill their fields", "c", "n", 2**64 - 1, 2**32 - 2, 2**32 - 3, 1, 2**32 - 1, "e"),
    vector("names are UTF-8", "Großrechner", "knoten-ü", 1, 0, 0, 1, 0, "f"),
], indent=1, ensure_ascii=False))
