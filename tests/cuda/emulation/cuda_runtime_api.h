// Nothing more than cuda_runtime.h here.
#pragma once
#include "cuda_runtime.h"
