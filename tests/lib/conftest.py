# SPDX-License-Identifier: LGPL-2.1-or-later
from vmlib.fixtures import *  # noqa: F403
