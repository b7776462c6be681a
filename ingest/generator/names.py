"""What exporters call their interfaces, VRFs, applications and security groups: what their options data tell."""

from __future__ import annotations

from typing import Final

SLOT: Final = "%"
"""Stands in a name for a digit that is the exporter's own, so that no exporter's names do for another."""

VRFS: Final = {1: "default", 2: "mgmt-%", 3: "customer-%-blue", 4: "customer-%-red"}
APPLICATIONS: Final = {
    0x03000050: ("http", "World Wide Web traffic"),
    0x030001BB: ("secure-http", "Secured HTTP"),
    0x0D0001C5: ("ms-office-365", "Microsoft Office 365"),
    0x0D000031: ("skype", "Skype peer-to-peer telephony"),
    0x0D00024F: ("webex-meeting", "Webex meeting"),
    0x01000058: ("eigrp", "Enhanced interior gateway routing"),
}
"""By engine and selector: name and description. Those that conversations have besides are in no table."""
SGTS: Final = {
    0: "Unknown",
    2: "TrustSec_Devices",
    4: "Employees",
    5: "Contractors",
    10: "Guests",
    16: "PCI_Servers",
}
"""By tag; two that conversations have besides are in no table."""


def cisco_name(interface: int) -> str:
    """An interface's short name, as element 82 has it."""
    return f"Te%/0/0/{interface}"


def cisco_description(interface: int) -> str:
    """What element 83 has beside it."""
    return f"TenGigE%/0/0/{interface}"


def mangled(name: str) -> str:
    """An interface's name as IOS-XR writes it to element 82: the true name is what it has in 83."""
    return name.replace("/", "_")


def port_name(interface: int) -> str:
    """An interface's name as sFlow's counters have it."""
    return f"Ethernet%/{interface}"
